-- include: lib
-- Store one batch, once, in order (design 3.1.1).  KEYS[1] account.
-- ARGV: campaign, batch number, input rows, rejected rows, digest (8), payload, fingerprints (8 each), rows they belong to (an octet each),
--       then level, mask pairs.
-- Exact duplicates, by fingerprint, are left out of the accepted mask. Fingerprints live in buckets of packed octets: generations of 2^8,
-- 2^12, 2^16, 2^20 buckets, each left for the next at 64 a bucket, so they cost about 9 octets a row at any length.
-- Replies {'stored', accepted, duplicates, attached, may send now}, {'same'}, {'differs', stored payload}, {'expected', number}, {'closed', state}.
local id, k, rows, digest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5]
local key = send_key(id)
local s = call('HMGET', key, 'state', 'sealed', 'batches', 'prints')
if not s[1] then return {'closed', 'missing'} end
local batches = num(s[3])
if k < batches then
  local stored = call('HGET', key .. ':p', k)
  if not stored then return {'same'} end
  if sub(stored, 1, 8) == digest then return {'same'} end
  return {'differs', sub(stored, 22)}
end
if k > batches then return {'expected', batches} end
if s[2] == '1' then return {'closed', 'sealed'} end
if s[1] == 'cancelled' then return {'closed', s[1]} end
local prints, n = ARGV[7], #ARGV[7] / 8
local total = num(s[4])
local generation = total < 2^14 and 0 or total < 2^18 and 1 or total < 2^22 and 2 or 3
local fields, found, duplicate = {}, {}, {}
local function aligned(bucket, print)
  local from = 1
  while bucket do
    local at = string.find(bucket, print, from, true)
    if not at then return false end
    if at % 8 == 1 then return true end
    from = at + 1
  end
end
for g = 0, generation do
  local places, at = {}, {}
  for i = 1, n do
    local hash = unpack_('<I4', prints, i * 8 - 7) % 2^(8 + 4 * g)
    places[i] = pack('<I4', hash)
    at[i] = sub(prints, i * 8 - 7, i * 8)
  end
  fields = places
  if n > 0 then found = call('HMGET', key .. ':f' .. g, unpack(places)) end
  for i = 1, n do if found[i] and aligned(found[i], at[i]) then duplicate[i] = true end end
end
local fresh, seen, fill, set = {}, {}, {}, {}
local positions = {}
for i = 1, n do
  local print = sub(prints, i * 8 - 7, i * 8)
  if seen[print] then duplicate[i] = true end
  seen[print] = true
  if not duplicate[i] then
    positions[#positions + 1] = byte(ARGV[8], i)
    fresh[#fresh + 1] = i
    fill[fields[i]] = (fill[fields[i]] or found[i] or '') .. print
  end
end
for place, bucket in pairs(fill) do set[#set + 1] = place set[#set + 1] = bucket end
if #set > 0 then call('HSET', key .. ':f' .. generation, unpack(set)) end
local accepted = mask_of(positions)
call('HSET', key .. ':p', k, digest .. accepted .. ARGV[6])
for i = 9, #ARGV, 2 do
  local mask = mask_and(ARGV[i + 1], accepted)
  if mask ~= NONE then call('XADD', key .. ':q' .. ARGV[i], (k + 1) .. '-0', 'm', mask) end
end
call('HSET', key, 'batches', batches + 1, 'prints', total + #fresh)
call('HINCRBY', key, 'rows', rows)
call('HINCRBY', key, 'accepted', #fresh)
if n > #fresh then call('HINCRBY', key, 'duplicates', n - #fresh) end
if ARGV[4] ~= '0' then call('HINCRBY', key, 'rejected', ARGV[4]) end
return {'stored', #fresh, n - #fresh, is_attached(), call('ZSCORE', A .. ':run', id) and 1 or 0}
