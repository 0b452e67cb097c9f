-- Shared by the scripts by which credits come: a purchase is one lot, once. `lane` is the SMS lane; amounts are thousandths of a credit.
-- Number and amount of the lot that a purchase stands for; nil while there is none.
local function lot_of(lane, purchase)
  local number = call('HGET', lane .. ':lots', '#' .. purchase)
  if number then return tonumber(number), string.match(call('HGET', lane .. ':lots', number), '^%d+') end
end
-- A lot with its line in the ledger. `fixed`: µs until when it is good, 0: until the e-mail term ends, whenever that is.
local function buy(lane, purchase, amount, bought, fixed, who, why)
  local lots = lane .. ':lots'
  local number = num(call('HGET', lots, '#')) + 1
  call('HSET', lots, '#', number, '#' .. purchase, number, number, table.concat({amount, '0', '0', bought, fixed}, ' '))
  call('XADD', lane .. ':money', '*', 'k', 'grant', 'l', number .. ':' .. amount, 'c', '', 'b', -1, 'u', bought, 'x', fixed, 'w', who, 'y', why)
  return number
end
