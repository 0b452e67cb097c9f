-- include: masks states
-- Shared by restore: rows are taken out of where they should not stand, and what stands afterwards is gathered in mending.held.
local function hold(mending, k, mask)
  mending.held[k] = mending.held[k] and mask_op(bit.bor, mending.held[k], mask) or mask
  return count(mask)
end
local function waits(mending, k, mask)          -- what may go on waiting of these rows
  if not mending.ended[k] then return mask end
  return mask_minus(mask_minus(mask, mending.ended[k]), mending.twice[k])
end
local function mend_leases(mending)             -- the rows that stand in leases
  local leases, n = call('HGETALL', A .. ':lease'), 0
  for i = 1, #leases, 2 do
    local mask, k, level, taken, id, worker, past = lease_unpack(leases[i + 1])
    if id == mending.id then
      local rest = mending.ended[k] and mask_minus(mask, mending.ended[k]) or mask
      if rest == NONE then call('HDEL', A .. ':lease', leases[i])
      elseif rest ~= mask then call('HSET', A .. ':lease', leases[i], lease_pack(rest, k, level, taken, id, worker, histories(past, rest))) end
      n = n + hold(mending, k, rest)
    end
  end
  return n
end
local function mend_list(mending, list)         -- given back, or set aside
  local records, n = call('LRANGE', list, 0, -1), 0
  call('DEL', list)
  for _, v in ipairs(records) do
    local k = unpack_('<I4', v)
    local mask = waits(mending, k, sub(v, 6, 18))
    if mask ~= NONE then call('RPUSH', list, sub(v, 1, 5) .. mask .. histories(sub(v, 19), mask)) end
    n = n + hold(mending, k, mask)
  end
  return n
end
local function mend_retries(mending)
  local r, w, n = mending.key .. ':r', mending.key .. ':w', 0
  for _, k in ipairs(call('HKEYS', r)) do
    local entries, rows, kept = call('HGET', r, k), {}, {}
    for i = 1, #entries, 14 do
      local row = byte(entries, i)
      if has(waits(mending, tonumber(k), mask_of({row})), row) then rows[#rows + 1] = row kept[#kept + 1] = sub(entries, i, i + 13) end
    end
    if #rows > 0 then call('HSET', r, k, table.concat(kept)) call('ZADD', w, 'NX', int(clock()), k)
    else call('HDEL', r, k) call('ZREM', w, k) end
    n = n + hold(mending, tonumber(k), mask_of(rows))
  end
  return n
end
-- What is left of a waiting entry that had to be touched goes on as given back: an entry cannot be written anew.
local function mend_entry(mending, k, level)
  local stream, id = mending.key .. ':q' .. level, int(k + 1) .. '-0'
  local entry = call('XRANGE', stream, id, id)[1]
  if not entry then return end
  local rest = waits(mending, k, entry[2][2])
  if rest ~= entry[2][2] then
    call('XDEL', stream, id)
    if rest ~= NONE then call('RPUSH', mending.key .. ':b', pack('<I4B', k, level) .. rest) end
  end
  hold(mending, k, rest)
end
