-- Shared by eventing: what is kept of an order, the sequence of its latest event before it: lines that wait for their payment (JSON, a line each),
-- or "paid". Of either kind the last hundred stand: those that nobody ever paid, or that nobody told more of, go.
local ORDERS, PAID = 100, 'paid'
local function is_paid(value) return string.match(value, '^%d+ (.*)$') == PAID end
local function keep_order(orders, order, sequence, kept)
  if kept == '' then return call('HDEL', orders, order) end
  call('HSET', orders, order, sequence .. ' ' .. kept)
  if call('HLEN', orders) <= ORDERS then return end
  local all, n, oldest, least = call('HGETALL', orders), 0, nil, math.huge
  for i = 1, #all, 2 do
    if is_paid(all[i + 1]) == (kept == PAID) then
      local at = tonumber(string.match(all[i + 1], '^%d+'))
      n = n + 1
      if at < least then oldest, least = all[i], at end
    end
  end
  if n > ORDERS then call('HDEL', orders, oldest) end
end
