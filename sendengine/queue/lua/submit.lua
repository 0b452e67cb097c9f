-- include: lib masks turns finding standing unended noting
-- Store one batch, once, in order (design 3.1.1).  KEYS[1] account.
-- ARGV: campaign, batch number, input rows, rejected rows, digests (as in standing.lua) and those of the batch before, payload, fingerprints
--       (8 each), rows they belong to (an octet each), their places (3 each: the first 20 bits), the run that loads it ("" none) and where its list
--       begins, a line for the audit trail, which goes with the first batch that the run stores, then level, mask pairs.
-- Exact duplicates, by fingerprint, are left out of the accepted mask (finding.lua).
-- From here on the run is `unended`, until list.lua or the seal.
-- Replies {'stored', accepted, duplicates, attached, may send now}, {'same', attached, may send now}, {'differs', stored payload}, {'expected', number}, {'closed', state},
-- {'apart'}: what stands before it is another list.
local id, k, rows, digests = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5]
local key = send_key(id)
local s = call('HMGET', key, 'state', 'sealed', 'batches', 'prints', 'expected', 'rows', 'accepted', 'unended')
if not s[1] then return {'closed', 'missing'} end
local batches = num(s[3])
local function is_running() return call('ZSCORE', A .. ':run', id) and 1 or 0 end
if k < batches then
  local stored = call('HGET', key .. ':p', k)
  if stored and not stands_as(stored, digests) then return {'differs', sub(stored, 22)} end
  return {'same', is_attached(), is_running()}
end
if k > batches then return {'expected', batches} end
if s[2] == '1' then return {'closed', 'sealed'} end
if s[1] == 'cancelled' then return {'closed', s[1]} end
if k > 0 and not stands_as(call('HGET', key .. ':p', k - 1) or '', sub(digests, 17)) then return {'apart'} end
local n, total = #ARGV[7] / 8, num(s[4])
local positions, bucketed, buckets = find_fresh(key, n, total, num(s[5]))
local refused = reserve and reserve(id, k, positions, ARGV[8])
local before, run = marks_in(s[8]), ARGV[10]
local marks, is_first = before, false
if run ~= '' then marks, is_first = marked(before, run, ARGV[11], ARGV[2], refused and 0 or 1) end
if marks ~= before and (refused or not conclude) then call('HSET', key, 'unended', marks) end
if refused then return refused end
if #bucketed > 0 then call('HSET', buckets, unpack(bucketed)) end
local fresh = #positions
local accepted = mask_of(positions)
call('HSET', key .. ':p', k, sub(digests, 1, 8) .. accepted .. ARGV[6])
for i = 13, #ARGV - 1, 2 do
  local mask = mask_and(ARGV[i + 1], accepted)
  if mask ~= NONE then call('XADD', key .. ':q' .. ARGV[i], (k + 1) .. '-0', 'm', mask) end
end
call('HSET', key, 'batches', batches + 1, 'prints', int(total + fresh), 'rows', int(num(s[6]) + rows), 'accepted', int(num(s[7]) + fresh))
if n > fresh then call('HINCRBY', key, 'duplicates', n - fresh) end
if ARGV[4] ~= '0' then call('HINCRBY', key, 'rejected', ARGV[4]) end
local served = call('ZSCORE', A .. ':run', id)
if served and fresh > 0 then call('ZADD', A .. ':ready', served, id) end      -- of what note_work keeps, submitting changes this alone
if is_first then note(clock(), ARGV[12]) end
if conclude then conclude(id) end
return {'stored', fresh, n - fresh, is_attached(), conclude and is_running() or served and 1 or 0}
