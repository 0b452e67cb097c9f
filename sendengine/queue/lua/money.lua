-- Shared by the scripts of a lane that is paid for: lots pay, the one that expires first before the others (policy/credits.py is the twin).
-- A:lots, A:money, A:c:ID:$ as queue/keys.py says. Amounts are whole thousandths of a credit. A row is charged once: it leaves its lease once.
local LOTS = A .. ':lots'
local function lots_in_order()
  local home = call('HMGET', B, 'term_ends', 'channels')
  local term, has_mail, is_named = tonumber(home[1] or '') or math.huge, false, false
  for word in string.gmatch(string.lower(home[2] or ''), '[%a-]+') do
    is_named = true
    has_mail = has_mail or word == 'mail' or word == 'email' or word == 'e-mail'
  end
  local lots, flat = {}, call('HGETALL', LOTS)
  for i = 1, #flat, 2 do
    local g, r, s, bought, fixed = string.match(flat[i + 1], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
    if g then
      local lot = {n = tonumber(flat[i]), granted = tonumber(g), reserved = tonumber(r), spent = tonumber(s), bought = bought, fixed = fixed}
      local own = tonumber(fixed)
      lot.expires = own == 0 and term or (has_mail or not is_named) and math.max(own, term) or own
      lots[#lots + 1] = lot
    end
  end
  table.sort(lots, function(a, b)
    if a.expires ~= b.expires then return a.expires < b.expires end
    if a.bought ~= b.bought then return tonumber(a.bought) < tonumber(b.bought) end
    return a.n < b.n
  end)
  return lots, term
end
local function change(lot, reserved, spent)
  lot.reserved, lot.spent = lot.reserved + reserved, lot.spent + spent
  call('HSET', LOTS, lot.n, table.concat({int(lot.granted), int(lot.reserved), int(lot.spent), lot.bought, lot.fixed}, ' '))
end
local function enter(kind, moved, id, k) call('XADD', A .. ':money', '*', 'k', kind, 'l', table.concat(moved, ' '), 'c', id, 'b', k) end
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
local function price_at(prices, row) return prices and unpack_('<I4', prices, #prices == 4 and 1 or row * 4 + 1) or 0 end
local function id_of(key) return sub(key, #A + 4) end
-- Of a batch that is stored: the last of ARGV is what its valid rows cost, those of `rows` are paid for. {'credit', needed, free}: too little.
function reserve(id, k, rows)
  local at, prices, needed, free, lots, term = {}, {}, 0, 0, lots_in_order()
  local now, is_even, moved, key = clock(), true, {}, send_key(id) .. ':$'
  for i = 1, #ARGV[8] do at[byte(ARGV[8], i)] = i end
  for p = 0, #rows > 0 and rows[#rows] or -1 do prices[p + 1] = 0 end
  for _, p in ipairs(rows) do
    prices[p + 1] = unpack_('<I4', ARGV[#ARGV], at[p] * 4 - 3)
    needed, is_even = needed + prices[p + 1], is_even and prices[p + 1] == prices[rows[1] + 1]
  end
  for _, lot in ipairs(lots) do
    lot.free = now < term and now < lot.expires and lot.granted - lot.reserved - lot.spent or 0
    free = free + lot.free
  end
  if free < needed then return {'credit', int(needed), int(free)} end
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
-- Of rows that end with a record: what was submitted is spent (sent, in doubt for good, refused by the peer: MAIL was written), else it is free.
function pay(key, k, records)
  local prices, spent, released = call('HGET', key .. ':$', k), 0, 0
  for i = 1, #records, 14 do
    local row, what = byte(records, i, i + 1)
    local price, outcome = price_at(prices, row), what % 8
    if outcome == 1 or outcome == 6 or outcome == 2 and unpack_('<I4', records, i + 5) > 0 then spent = spent + price
    else released = released + price end
  end
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
