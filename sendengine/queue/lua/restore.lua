-- include: lib masks states
-- Repair what fsck found (scheduler/fsck.py): rows that stand nowhere become READY, counts are written anew.  KEYS[1] account.
-- ARGV: campaign, the last outcome entry the caller has read ("" none), number of counts, then field, value pairs, then batch, mask pairs.
-- Looks once more: rows that stand somewhere by now are left alone, and with newer outcomes than the caller's nothing is changed at all.
-- Replies rows put back, or -1: it moved meanwhile.
local id, key = ARGV[1], send_key(ARGV[1])
if call('EXISTS', key) == 0 then return -1 end
local last = call('XREVRANGE', key .. ':o', '+', '-', 'COUNT', 1)[1]
if (last and last[1] or '') ~= ARGV[2] then return -1 end
local state = call('HGET', key, 'state')
local held, leased, deferred, aside = {}, 0, 0, 0
local function hold(k, mask) held[k] = held[k] and mask_op(bit.bor, held[k], mask) or mask return count(mask) end
local leases = call('HVALS', A .. ':lease')
for _, v in ipairs(leases) do
  local mask, k, _, _, campaign = lease_unpack(v)
  if campaign == id then leased = leased + hold(k, mask) end
end
for _, v in ipairs(call('LRANGE', key .. ':b', 0, -1)) do hold((unpack_('<I4', v)), sub(v, 6, 18)) end
for _, v in ipairs(call('LRANGE', key .. ':z', 0, -1)) do aside = aside + hold((unpack_('<I4', v)), sub(v, 6, 18)) end
for _, k in ipairs(call('HKEYS', key .. ':r')) do
  local entries, rows = call('HGET', key .. ':r', k), {}
  for i = 1, #entries, 14 do rows[#rows + 1] = byte(entries, i) end
  deferred = deferred + hold(tonumber(k), mask_of(rows))
end
local first, back = 4 + 2 * tonumber(ARGV[3]), 0
for i = 4, first - 1, 2 do call('HSET', key, ARGV[i], ARGV[i + 1]) end
call('HSET', key, 'leased', leased, 'deferred', deferred, 'quarantined', aside)
if state == 'cancelled' then return 0 end
for i = first, #ARGV, 2 do
  local k = tonumber(ARGV[i])
  for level = 0, 9 do
    for _, entry in ipairs(call('XRANGE', key .. ':q' .. level, (k + 1) .. '-0', (k + 1) .. '-0')) do hold(k, entry[2][2]) end
  end
  local mask = held[k] and mask_minus(ARGV[i + 1], held[k]) or ARGV[i + 1]
  if mask ~= NONE then
    call('RPUSH', key .. ':b', pack('<I4B', k, 0) .. mask)
    back = back + count(mask)
  end
end
if back > 0 and state == 'finished' then
  call('HSET', key, 'state', 'sending')
  call('HDEL', key, 'finished', 'through')
  for _, part in ipairs({':m', ':p', ':o', ':d'}) do call('PERSIST', key .. part) end
  sync_run(id)
end
return back
