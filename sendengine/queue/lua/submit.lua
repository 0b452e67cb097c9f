-- include: lib masks turns
-- Store one batch, once, in order (design 3.1.1).  KEYS[1] account.
-- ARGV: campaign, batch number, input rows, rejected rows, digest (8), payload, fingerprints (8 each), rows they belong to (an octet each),
--       then level, mask pairs.
-- Exact duplicates, by fingerprint, are left out of the accepted mask. Fingerprints live in buckets of packed octets: generations of 2^16,
-- 2^20 and 2^24 buckets, each left for the next at 2^20 and 2^25 rows: about 11 octets a row then, and no script copies much.
-- Replies {'stored', accepted, duplicates, attached, may send now}, {'same', attached, may send now}, {'differs', stored payload}, {'expected', number}, {'closed', state}.
local id, k, rows, digest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5]
local key = send_key(id)
local s = call('HMGET', key, 'state', 'sealed', 'batches', 'prints')
if not s[1] then return {'closed', 'missing'} end
local batches = num(s[3])
local function is_running() return call('ZSCORE', A .. ':run', id) and 1 or 0 end
if k < batches then
  local stored = call('HGET', key .. ':p', k)
  if stored and sub(stored, 1, 8) ~= digest then return {'differs', sub(stored, 22)} end
  return {'same', is_attached(), is_running()}
end
if k > batches then return {'expected', batches} end
if s[2] == '1' then return {'closed', 'sealed'} end
if s[1] == 'cancelled' then return {'closed', s[1]} end
local n, total = #ARGV[7] / 8, num(s[4])
local generation = total < 2^20 and 0 or total < 2^25 and 1 or 2
local prints, places, found, duplicate, seen, fill, set, positions = {}, {}, {}, {}, {}, {}, {}, {}
for i = 1, n do prints[i] = sub(ARGV[7], i * 8 - 7, i * 8) end
local function stands_in(bucket, print)
  local at = string.find(bucket, print, 1, true)
  while at and at % 8 ~= 1 do at = string.find(bucket, print, at + 1, true) end
  return at
end
for g = 0, n > 0 and generation or -1 do
  for i = 1, n do
    if g == 1 then places[i] = sub(prints[i], 1, 2) .. string.char(byte(prints[i], 3) % 16) else places[i] = sub(prints[i], 1, 2 + g / 2) end
  end
  found = call('HMGET', key .. ':f' .. g, unpack(places))
  for i = 1, n do if found[i] and stands_in(found[i], prints[i]) then duplicate[i] = true end end
end
for i = 1, n do
  local print, place = prints[i], places[i]
  if not duplicate[i] and not seen[print] then
    seen[print] = true
    positions[#positions + 1] = byte(ARGV[8], i)
    fill[place] = (fill[place] or found[i] or '') .. print
  end
end
local refused = reserve and reserve(id, k, positions)
if refused then return refused end
for place, bucket in pairs(fill) do set[#set + 1] = place set[#set + 1] = bucket end
if #set > 0 then call('HSET', key .. ':f' .. generation, unpack(set)) end
local fresh = #positions
local accepted = mask_of(positions)
call('HSET', key .. ':p', k, digest .. accepted .. ARGV[6])
for i = 9, #ARGV - 1, 2 do
  local mask = mask_and(ARGV[i + 1], accepted)
  if mask ~= NONE then call('XADD', key .. ':q' .. ARGV[i], (k + 1) .. '-0', 'm', mask) end
end
call('HSET', key, 'batches', batches + 1, 'prints', total + fresh)
call('HINCRBY', key, 'rows', rows)
call('HINCRBY', key, 'accepted', fresh)
if n > fresh then call('HINCRBY', key, 'duplicates', n - fresh) end
if ARGV[4] ~= '0' then call('HINCRBY', key, 'rejected', ARGV[4]) end
note_work(id)
return {'stored', fresh, n - fresh, is_attached(), is_running()}
