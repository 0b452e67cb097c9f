-- include: lib
-- What a provider says of a message that it took.  KEYS[1] the SMS lane.  ARGV: campaign, batch, row, state, error.
-- A recipient of several parts was reached when each was: what is not DELIVRD stays, whatever is said of other parts. No outcome and no money
-- changes. A campaign that is gone is not re-created.  Replies 1, or 0 when nothing changed.
local key, row = send_key(ARGV[1]), ARGV[2] .. ':' .. ARGV[3]
if call('EXISTS', key) == 0 then return 0 end
local before = string.match(call('HGET', key .. ':s', row) or '', '^%S+')
if before == ARGV[4] or before and before ~= 'DELIVRD' then return 0 end
call('HSET', key .. ':s', row, ARGV[4] .. ' ' .. (ARGV[5] ~= '' and ARGV[5] or '-') .. ' ' .. int(clock() / 1000))
if before then call('HINCRBY', key, 'delivered', -1) end
call('HINCRBY', key, ARGV[4] == 'DELIVRD' and 'delivered' or 'undelivered', 1)
local left = call('TTL', key .. ':o')
if left > 0 then call('EXPIRE', key .. ':s', left) end
return 1
