-- include: money
-- Shared by the scripts that end rows of a lane that is paid for: what was reserved is spent, or free again.
local function price_at(prices, row) return prices and unpack_('<I4', prices, #prices == 4 and 1 or row * 4 + 1) or 0 end
local function id_of(key) return sub(key, #A + 4) end
-- What a send has reserved moves: spent from its first lots on, released from its last.
local function move(kind, id, k, amount)
  local lots, moved, key = lots_in_order(), {}, send_key(id) .. ':$'
  for i = 1, #lots do
    local lot = lots[kind == 'spend' and i or #lots + 1 - i]
    local part = math.min(amount, amount > 0 and num(call('HGET', key, 'd' .. lot.n)) or 0)
    if part > 0 then
      call('HINCRBY', key, 'd' .. lot.n, -part)
      change(lot, -part, kind == 'spend' and part or 0)
      moved[#moved + 1] = lot.n .. ':' .. int(part)
      amount = amount - part
    end
  end
  if #moved > 0 then enter(kind, moved, id, k) end
end
-- Of rows that end with a record: what was submitted is spent (sent, in doubt for good, refused by the peer: MAIL was written), else it is free.
function pay(key, k, records)
  local prices, spent, released = call('HGET', key .. ':$', k), 0, 0
  for i = 1, #records, 14 do
    local row, what = byte(records, i, i + 1)
    local price, outcome = price_at(prices, row), what % 8
    if outcome == 1 or outcome == 6 or outcome == 2 and unpack_('<I4', records, i + 5) > 0 then spent = spent + price
    else released = released + price end
  end
  charged = charged + spent
  move('spend', id_of(key), k, spent)
  move('release', id_of(key), k, released)
end
-- Of rows that a cancel ends without a record.
function refund(key, k, mask, is_recorded)
  local prices, released = call('HGET', key .. ':$', k), 0
  for p = 0, 103 do if has(mask, p) and not is_recorded[p] then released = released + price_at(prices, p) end end
  move('release', id_of(key), k, released)
end
-- Of a send that was cancelled: all that it has reserved, but for what is on its way.
function refund_rest(id)
  local key, rest, flat = send_key(id) .. ':$', 0, call('HGETALL', A .. ':lease')
  for _, name in ipairs(call('HKEYS', key)) do if sub(name, 1, 1) == 'd' then rest = rest + num(call('HGET', key, name)) end end
  for i = 2, #flat, 2 do
    local mask, k, _, _, other = lease_unpack(flat[i])
    local prices = other == id and call('HGET', key, k)
    for p = 0, prices and 103 or -1 do if has(mask, p) then rest = rest - price_at(prices, p) end end
  end
  move('release', id, -1, rest)
end
