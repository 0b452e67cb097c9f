-- include: lib masks turns noting
-- What was set aside becomes READY again, its batches without a count of kills.  KEYS[1] account.  ARGV: campaign,
-- a line for the audit trail, where anything was set aside.
-- Replies {'done', rows} or {'closed', state}.
local id, key = ARGV[1], send_key(ARGV[1])
local state, rows = call('HGET', key, 'state'), 0
if not state or state == 'cancelled' or state == 'finished' then return {'closed', state or 'missing'} end
for _, v in ipairs(call('LRANGE', key .. ':z', 0, -1)) do
  rows = rows + count(sub(v, 6, 18))
  call('HDEL', key .. ':k', (unpack_('<I4', v)))
  call('RPUSH', key .. ':b', v)
end
call('DEL', key .. ':z')
call('HDEL', key, 'quarantined')
note_work(id)
if rows > 0 then note(clock(), ARGV[2]) end
return {'done', rows}
