-- include: lib states resting cutting noting
-- Pause a campaign: permits it might have used are cut, leases come back by their workers.  KEYS[1] account.
-- ARGV: campaign, cut delay µs, a line for the audit trail, and why, when it was not a user's word.  Replies {'done', cut number, cut µs}, {'same'}, {'closed', state}.
local id, key, now = ARGV[1], send_key(ARGV[1]), clock()
local state = call('HGET', key, 'state')
if state == 'paused' then return {'same'} end
if id == TRANSACTIONAL or state ~= 'sending' and state ~= 'scheduled' and state ~= 'sequential' then return {'closed', state or 'missing'} end
call('HSET', key, 'state', 'paused', 'before', state, 'paused_at', int(now))
if ARGV[4] then call('HSET', key, 'why', ARGV[4]) end
sync_rest(id, now)
sync_run(id)
advance()
note(now, ARGV[3])
local number, at = cut(now, tonumber(ARGV[2]))
return {'done', number, int(at)}
