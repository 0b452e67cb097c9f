-- include: lib states noting
-- Make a campaign (unsealed, without rows).  KEYS[1] account.
-- ARGV: id, definition (digest of all that the caller said), start µs ("" now), message, a line for the audit trail, then field, value
--       pairs.
-- Replies 'new', 'same' (a repeat: nothing changed), 'differs', 'account' (no such account, or it is being purged), 'taken' (another lane of
--         the account has the id).
local id, key = ARGV[1], send_key(ARGV[1])
if call('EXISTS', A) == 0 or call('HEXISTS', B, 'purging') == 1 then return 'account' end
local standing = call('HGET', key, 'definition')
if standing then return standing == ARGV[2] and 'same' or 'differs' end
if id ~= TRANSACTIONAL and call('EXISTS', (A == B and A .. '/sms' or B) .. ':c:' .. id) == 1 then return 'taken' end
local now = clock()
call('HSET', key, 'definition', ARGV[2], 'created', int(now), 'state', 'scheduled', 'batches', 0)
for i = 6, #ARGV, 2 do call('HSET', key, ARGV[i], ARGV[i + 1]) end
call('SET', key .. ':m', ARGV[4])
call('ZADD', A .. ':sends', int(now), id)
call('SADD', A .. ':open', id)
if call('HGET', key, 'sequential') == '1' then call('RPUSH', A .. ':line', id) end
if id == TRANSACTIONAL then call('HSET', key, 'state', 'sending')
elseif ARGV[3] ~= '' and tonumber(ARGV[3]) > now then call('HSET', key, 'at', ARGV[3]) call('ZADD', A .. ':at', ARGV[3], id)
else
  start(id)
  local look = call('HGET', key, 'window_at')
  if look then call('ZADD', A .. ':at', look, id) end
end
note(now, ARGV[5])
return 'new'
