-- Keep an API key, change what is kept of it, or forget some.  KEYS[1] all keys.  ARGV: owner (account, or "admin"), then
--   "keep", digest, value, seat, seats its owner may have ("" any number);  "change", digest, value as it was read, value;  "drop", digests …
-- An owner's digests stand in KEYS[1]:OWNER with their seats: several keys of one seat count once.
-- Replies {'done', keys changed}; {'same', 0}: nothing to do; {'seats', 0}: all seats are others', nothing was changed;
-- {'gone', 0}: its owner was purged, or is being purged.
local own, digest = KEYS[1] .. ':' .. ARGV[1], ARGV[3]
local call = redis.call
if ARGV[2] == 'keep' then
  if call('HEXISTS', '{x}:gone', ARGV[1]) == 1 then return {'gone', 0} end
  if call('HEXISTS', KEYS[1], digest) == 1 then return {'same', 0} end
  if ARGV[6] ~= '' then
    local taken, others = {}, 0
    for _, seat in ipairs(call('HVALS', own)) do
      if seat ~= ARGV[5] and not taken[seat] then taken[seat] = true others = others + 1 end
    end
    if others >= tonumber(ARGV[6]) then return {'seats', 0} end
  end
  call('HSET', KEYS[1], digest, ARGV[4])
  call('HSET', own, digest, ARGV[5])
  return {'done', 1}
end
if ARGV[2] == 'change' then
  if call('HGET', KEYS[1], digest) ~= ARGV[4] then return {'same', 0} end
  call('HSET', KEYS[1], digest, ARGV[5])
  return {'done', 1}
end
local gone = 0
for i = 3, #ARGV do
  if call('HDEL', own, ARGV[i]) == 1 then gone = gone + call('HDEL', KEYS[1], ARGV[i]) end
end
return {gone > 0 and 'done' or 'same', gone}
