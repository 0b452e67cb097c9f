-- include: lib states resting cutting noting
-- Resume a paused campaign; the time it stood does not count against lifetimes.  KEYS[1] account.  ARGV: campaign, cut delay µs,
-- a line for the audit trail.
-- Replies {'done', cut number, cut µs}, {'same'} (it is not paused), {'closed', state}.
local id, key, now = ARGV[1], send_key(ARGV[1]), clock()
local s = call('HMGET', key, 'state', 'before', 'at')
if not s[1] or s[1] == 'cancelled' or s[1] == 'finished' then return {'closed', s[1] or 'missing'} end
if s[1] ~= 'paused' then return {'same'} end
call('HDEL', key, 'paused_at', 'before', 'why')
call('HSET', key, 'state', 'scheduled', 'resumed_at', int(now))
sync_rest(id, now)
if s[2] ~= 'scheduled' or num(s[3]) <= now then
  local at = call('ZSCORE', A .. ':at', id)
  start(id)
  if at and call('HEXISTS', key, 'window') == 1 then call('ZADD', A .. ':at', at, id) end
end
note(now, ARGV[3])
local number, at = cut(now, tonumber(ARGV[2]))
return {'done', number, int(at)}
