-- Shared by eventing: what is kept of an order, the sequence of its latest event before it: lines that wait for their payment (JSON, a line each).
-- A hundred orders wait at most. The release before kept "paid" of those whose payment had come, too: they count for nothing, and go.
local ORDERS = 100
local function is_over(value) return sub(value, -4) == 'paid' end
local function is_full(orders, order)
  if call('HLEN', orders) < ORDERS or call('HEXISTS', orders, order) == 1 then return false end
  local n = 0
  for _, value in ipairs(call('HVALS', orders)) do
    if not is_over(value) then n = n + 1 end
  end
  return n >= ORDERS
end
local function keep_order(orders, order, sequence, kept)
  if kept == '' then return call('HDEL', orders, order) end
  call('HSET', orders, order, sequence .. ' ' .. kept)
  if call('HLEN', orders) <= ORDERS then return end
  local all = call('HGETALL', orders)
  for i = 1, #all, 2 do
    if is_over(all[i + 1]) then call('HDEL', orders, all[i]) end
  end
end
