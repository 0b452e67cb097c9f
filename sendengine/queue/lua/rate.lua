-- include: lib cutting noting
-- Change the speed of an account, in mid-send too.  KEYS[1] account.  ARGV: tier name, messages per hour ("" unmetered), µs between
-- messages, cut delay µs, a line for the audit trail.  The clock goes back on its old grid and then runs at the new rate: no burst, nothing
-- lost.  The same speed again is told to the workers as any, and is no line in the trail.
-- Replies {cut number, cut µs}, or {} when there is no such account.
if call('EXISTS', A) == 0 then return {} end
local now, before = clock(), call('HMGET', A, 'tier', 'rate', 'iv')
local number, at = cut(now, tonumber(ARGV[4]))
call('HSET', A, 'tier', ARGV[1], 'rate', ARGV[2], 'iv', ARGV[3])
if before[1] ~= ARGV[1] or before[2] ~= ARGV[2] or before[3] ~= ARGV[3] then note(now, ARGV[5]) end
return {number, int(at)}
