-- Keep a private key that signs, or remove it.  KEYS[1] the hash of them.  ARGV: its field; its value, "" to remove it; the key in it;
-- "1" where the same key may take another value (begin at another time).
-- A key never takes another one's place: its record would not fit. A value that nobody can read is no key.
-- Counts the changes in field "#", by which workers see that there was one. Replies done; same: all stands as it was asked; other: refused.
local stands = redis.call('HGET', KEYS[1], ARGV[1])
if (stands or '') == ARGV[2] then return 'same' end
if stands and ARGV[2] ~= '' then
  local is_json, kept = pcall(cjson.decode, stands)
  if is_json and type(kept) == 'table' and type(kept.algorithm) == 'string' and type(kept.text) == 'string' and kept.text ~= '' then
    if kept.text ~= ARGV[3] then return 'other' end
    if ARGV[4] ~= '1' then return 'same' end
  end
end
redis.call('HINCRBY', KEYS[1], '#', 1)
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 'done'
