-- Fence a dead worker: compare-and-set on its token and the beat that was seen to stand still (design 3.2).  KEYS[1] journal.
-- ARGV: token seen, beat seen, records.REVOKED.  A journal already revoked may be revoked again: takeovers can be restarted.
-- Replies the journal (HGETALL), or {} when it beats, or is gone.
local s = redis.call('HMGET', KEYS[1], 't', 'b')
if not s[1] then return {} end
if s[1] ~= ARGV[3] then
  if s[1] ~= ARGV[1] or s[2] ~= ARGV[2] then return {} end
  redis.call('HSET', KEYS[1], 't', ARGV[3])
end
return redis.call('HGETALL', KEYS[1])
