-- include: money
-- Shared by submit_paid and transact_paid: lots pay for the rows of a batch before it is stored, or it is not.
-- Of a batch that is stored: the last of ARGV is what its valid rows cost (`valid`, an octet each), those of `rows` are paid for. {'credit',
-- needed, free}: too little, and a list notes what it lacks, until a batch is paid for.
function reserve(id, k, rows, valid)
  local at, prices, needed, free, lots, term = {}, {}, 0, 0, lots_in_order()
  local now, is_even, moved, key = clock(), true, {}, send_key(id) .. ':$'
  for i = 1, #valid do at[byte(valid, i)] = i end
  for p = 0, #rows > 0 and rows[#rows] or -1 do prices[p + 1] = 0 end
  for _, p in ipairs(rows) do
    prices[p + 1] = unpack_('<I4', ARGV[#ARGV], at[p] * 4 - 3)
    needed, is_even = needed + prices[p + 1], is_even and prices[p + 1] == prices[rows[1] + 1]
  end
  for _, lot in ipairs(lots) do
    lot.free = now < term and now < lot.expires and lot.granted - lot.reserved - lot.spent or 0
    free = free + lot.free
  end
  if free < needed then
    if id ~= TRANSACTIONAL then call('HSET', send_key(id), 'lacks', int(needed), 'lacks_at', int(now)) end
    return {'credit', int(needed), int(free)}
  end
  call('HDEL', send_key(id), 'lacks', 'lacks_at')
  for i = 1, #prices do prices[i] = pack('<I4', prices[i]) end
  if #rows > 0 then call('HSET', key, k, is_even and prices[rows[1] + 1] or table.concat(prices)) end
  for _, lot in ipairs(lots) do
    local part = math.min(needed, lot.free)
    if part > 0 then
      change(lot, part, 0)
      call('HINCRBY', key, 'd' .. lot.n, part)
      moved[#moved + 1] = lot.n .. ':' .. int(part)
      needed = needed - part
    end
  end
  if #moved > 0 then enter('reserve', moved, id, k) end
end
