-- include: lib suppressing
-- Put addresses on an account's list.  KEYS[1] account.  ARGV: address, entry (5 octets), address, entry ... no address twice.
-- The graver reason stands, the first of equal ones; so a repeat changes nothing.
-- Replies {new ones, those that came or changed, changes so far}, or {} where there is no account, or its purge has begun:
-- what comes behind the purge's scan would stay.
if call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1 then return {} end
local new, changed = suppress(ARGV)
return {new, changed, num(call('HGET', B, 'sup'))}
