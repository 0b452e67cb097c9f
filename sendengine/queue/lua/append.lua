-- The worker's fenced append; it is its heartbeat too (design 3.1.5).  KEYS[1] journal, KEYS[2] inbox.
-- ARGV: worker token, news seen since the journal began, number of fields to delete, these, then field, value pairs.
-- An absent journal, or another token, refuses: a fenced worker writes nothing.  At full memory a server refuses a script at its first write
-- if that may grow, and not after it: so one that sets something sets it first and is refused whole, and one that only deletes, or beats,
-- goes through: space comes back, and who waits for space is not called dead.  Replies {now µs, news confirmed, unconfirmed news ...} or the error FENCED.
if redis.call('HGET', KEYS[1], 't') ~= ARGV[1] then return redis.error_reply('FENCED another worker took over') end
local gone = tonumber(ARGV[3])
if #ARGV == 3 then redis.call('LTRIM', KEYS[2], 0, -1) end
for i = 4 + gone, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = 4, 3 + gone do redis.call('HDEL', KEYS[1], ARGV[i]) end
redis.call('HINCRBY', KEYS[1], 'b', 1)
local confirmed = tonumber(redis.call('HGET', KEYS[1], 'c') or 0)
if tonumber(ARGV[2]) > confirmed then
  redis.call('LTRIM', KEYS[2], ARGV[2] - confirmed, -1)
  confirmed = ARGV[2]
  redis.call('HSET', KEYS[1], 'c', confirmed)
end
local t = redis.call('TIME')
return {string.format('%.0f', t[1] * 1e6 + t[2]), tonumber(confirmed), unpack(redis.call('LRANGE', KEYS[2], 0, 999))}
