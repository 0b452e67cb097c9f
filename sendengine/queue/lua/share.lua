-- include: lib
-- A worker sends by a provider, and goes on to for a while; replies how many do, itself included.  KEYS[1] the provider's workers.
-- ARGV: worker, µs for which it counts when it says no more. Each say moves its own end on: a repeat changes nothing else.
local now = clock()
call('ZADD', KEYS[1], int(now + ARGV[2]), ARGV[1])
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. int(now))
call('EXPIRE', KEYS[1], 3600)
return call('ZCARD', KEYS[1])
