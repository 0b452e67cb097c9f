-- include: lib cutting
-- Change the speed of an account, in mid-send too.  KEYS[1] account.  ARGV: tier name, messages per hour ("" unmetered), µs between
-- messages, cut delay µs.  The clock goes back on its old grid and then runs at the new rate: no burst, nothing lost.
-- Replies {cut number, cut µs}, or {} when there is no such account.
if call('EXISTS', A) == 0 then return {} end
local number, at = cut(clock(), tonumber(ARGV[4]))
call('HSET', A, 'tier', ARGV[1], 'rate', ARGV[2], 'iv', ARGV[3])
return {number, int(at)}
