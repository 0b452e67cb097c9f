-- Keep a private key that signs, or remove it.  KEYS[1] the hash of them.  ARGV: its field; its value, "" to remove it.
-- Counts the changes in field "#", by which workers see that there was one. Replies 1, or 0 when all stands as it was asked.
local stands = redis.call('HGET', KEYS[1], ARGV[1])
if (stands or '') == ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], '#', 1)
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
