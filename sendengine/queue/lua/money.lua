-- include: channels
-- Shared by the scripts of a lane that is paid for: lots pay, the one that expires first before the others (policy/credits.py is the twin).
-- A:lots, A:money, A:c:ID:$ as queue/keys.py says. Amounts are whole thousandths of a credit. A row is charged once: it leaves its lease once.
local function lots_key() return A .. ':lots' end
local function lots_in_order()
  local home = call('HMGET', B, 'term_ends', 'channels')
  local term, has_mail = tonumber(home[1] or '') or math.huge, holds_mail(home[2])
  local lots, flat = {}, call('HGETALL', lots_key())
  for i = 1, #flat, 2 do
    local g, r, s, bought, fixed = string.match(flat[i + 1], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
    if g then
      local lot = {n = tonumber(flat[i]), granted = tonumber(g), reserved = tonumber(r), spent = tonumber(s), bought = bought, fixed = fixed}
      local own = tonumber(fixed)
      lot.expires = own == 0 and term or has_mail and math.max(own, term) or own
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
  call('HSET', lots_key(), lot.n, table.concat({int(lot.granted), int(lot.reserved), int(lot.spent), lot.bought, lot.fixed}, ' '))
end
local function enter(kind, moved, id, k) call('XADD', A .. ':money', '*', 'k', kind, 'l', table.concat(moved, ' '), 'c', id, 'b', k) end
