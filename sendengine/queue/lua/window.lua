-- include: lib states resting cutting
-- A campaign's send window opens or closes (the caller knows time zones).  KEYS[1] account.  ARGV: campaign, open 1/0, µs of the next look
-- ("" never), cut delay µs.  Replies {cut number, cut µs}, or {} when nothing changed.
local id, key, now = ARGV[1], send_key(ARGV[1]), clock()
local s = call('HMGET', key, 'state', 'open')
if not s[1] or s[1] == 'cancelled' or s[1] == 'finished' then call('ZREM', A .. ':at', id) return {} end
if s[1] == 'scheduled' then start(id) end
if ARGV[3] == '' then call('ZREM', A .. ':at', id) else call('ZADD', A .. ':at', ARGV[3], id) end
if s[2] == ARGV[2] then return {} end
call('HSET', key, 'open', ARGV[2])
if ARGV[2] == '1' then call('HDEL', key, 'closed_at') else call('HSET', key, 'closed_at', int(now)) end
sync_rest(id, now)
sync_run(id)
local number, at = cut(now, tonumber(ARGV[4]))
return {number, int(at)}
