-- Shared by the scripts by which credits come. `lane` is the SMS lane; amounts are thousandths of a credit.
-- A lot with its line in the ledger; its number. `fixed`: µs until when it is good, 0: until the e-mail term ends, whenever that is.
local function buy(lane, amount, bought, fixed, who, why)
  local lots = lane .. ':lots'
  local number = num(call('HGET', lots, '#')) + 1
  call('HSET', lots, '#', number, number, table.concat({amount, '0', '0', bought, fixed}, ' '))
  call('XADD', lane .. ':money', '*', 'k', 'grant', 'l', number .. ':' .. amount, 'c', '', 'b', -1, 'u', bought, 'x', fixed, 'w', who, 'y', why)
  return number
end
