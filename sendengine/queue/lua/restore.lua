-- include: lib mending
-- Repair what fsck found (scheduler/fsck.py).  KEYS[1] account.
-- ARGV: campaign, the last outcome entry the caller has read ("" none), what it saw of the campaign (records.seen), number of counts, then
--       field, value pairs; number of batches, then batch and three masks each: rows that have ended or were never accepted (taken out of wherever they stand), rows that stand more than
--       once (taken out of where they wait), rows that should stand somewhere.
-- What then stands nowhere becomes READY; counts and run set are written anew; single messages are always `sending`. With newer outcomes than the caller's, or a send that was
-- submitted to or steered since, nothing is changed.
-- Replies rows put back, or -1: it moved meanwhile.
local function seen(key)  -- as records.seen
  local fields = call('HMGET', key, 'state', 'batches', 'rows', 'accepted', 'cancelled', 'leased')
  local n = fields[1] == 'cancelled' and 6 or 5
  for i = 1, n do fields[i] = fields[i] or '' end
  return table.concat(fields, ' ', 1, n)
end
local id, key, back = ARGV[1], send_key(ARGV[1]), 0
local state, last = call('HGET', key, 'state'), call('XREVRANGE', key .. ':o', '+', '-', 'COUNT', 1)[1]
if not state or (last and last[1] or '') ~= ARGV[2] or seen(key) ~= ARGV[3] then return -1 end
if id == TRANSACTIONAL and state ~= 'sending' then state = 'sending' call('HSET', key, 'state', state) end
local at, wanted, mending = 5 + 2 * tonumber(ARGV[4]), {}, {id = id, key = key, held = {}, ended = {}, twice = {}}
for i = at + 1, #ARGV, 4 do
  local k = tonumber(ARGV[i])
  mending.ended[k], mending.twice[k], wanted[k] = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
end
for i = 5, at - 1, 2 do call('HSET', key, ARGV[i], ARGV[i + 1]) end
mend_list(mending, key .. ':b')
call('HSET', key, 'leased', mend_leases(mending), 'deferred', mend_retries(mending), 'quarantined', mend_list(mending, key .. ':z'))
if state == 'cancelled' then return 0 end
for k, mask in pairs(wanted) do
  for level = 0, 9 do mend_entry(mending, k, level) end
  local rest = mending.held[k] and mask_minus(mask, mending.held[k]) or mask
  if rest ~= NONE then
    call('RPUSH', key .. ':b', pack('<I4B', k, 0) .. rest)
    back = back + count(rest)
  end
end
if back > 0 and state == 'finished' then
  call('HSET', key, 'state', 'sending')
  call('HDEL', key, 'finished', 'over', 'through')
  call('SADD', A .. ':open', id)
  for _, part in ipairs({':m', ':p', ':o', ':d', ':k', ':$', ':s'}) do call('PERSIST', key .. part) end
end
mend_line(id)
sync_run(id)
finish_if_done(id)
return back
