-- Take accounts that need a worker out of the index.  KEYS[1] index.  ARGV: how many at most.
-- Out first, looked at afterwards, put back if anything is left (model: index.pml).
local t = redis.call('TIME')
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t[1] * 1e6 + t[2], 'LIMIT', 0, ARGV[1])
if #due > 0 then redis.call('ZREM', KEYS[1], unpack(due)) end
return due
