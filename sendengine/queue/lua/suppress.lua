-- include: lib suppressing noting counting complaining
-- Put addresses on an account's list.  KEYS[1] account.  ARGV: line for the audit trail, its run and "1" where this is the last part of that
-- (counting.lua), hours that complaints are kept where these are some ("" otherwise: whoever it changes something for complained);
-- then address, entry (5 octets), address, entry ... no address twice.
-- The graver reason stands, the first of equal ones; so a repeat changes nothing, tells nothing and counts nothing.
-- Replies {new ones, those that came or changed, changes so far}, or {} where there is no account, or its purge has begun:
-- what comes behind the purge's scan would stay.
if call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1 then return {} end
local new, changed = suppress({unpack(ARGV, 5)})
if changed > 0 and ARGV[4] ~= '' then complain(changed, tonumber(ARGV[4])) end
tally(ARGV[1], ARGV[2], ARGV[3] == '1', {added = new, changed = changed - new})
return {new, changed, num(call('HGET', B, 'sup'))}
