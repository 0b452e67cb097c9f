-- A worker sends by a provider, and goes on to for a while; replies how many do, itself included.  KEYS[1] the provider's workers.
-- ARGV: worker, µs for which it counts when it says no more. Each say moves its own end on: a repeat changes nothing else.
local t = redis.call('TIME')
local now = t[1] * 1e6 + t[2]
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
redis.call('EXPIRE', KEYS[1], 3600)
return redis.call('ZCARD', KEYS[1])
