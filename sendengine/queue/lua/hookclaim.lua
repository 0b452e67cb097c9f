-- Who has webhooks that need somebody now: whoever asks has them for a while, and if it dies the next one gets them.
-- KEYS[1] the index, account -> µs of its need.  ARGV: how many at most, µs that they are the caller's.   Replies accounts.
local t = redis.call('TIME')
local now = t[1] * 1e6 + t[2]
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
for _, account in ipairs(due) do redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), account) end
return due
