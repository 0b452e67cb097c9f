-- include: lib states
-- The list is complete: from here on the campaign has an N, a final estimate, and can finish.  KEYS[1] account.  ARGV: campaign, batches.
-- Replies {'sealed', attached}, {'same'}, {'expected', batches stored}, {'closed', state}.
local id, key = ARGV[1], send_key(ARGV[1])
local s = call('HMGET', key, 'state', 'sealed', 'batches')
if not s[1] then return {'closed', 'missing'} end
if num(s[3]) ~= tonumber(ARGV[2]) then return {'expected', num(s[3])} end
if s[2] == '1' then return {'same'} end
if s[1] == 'cancelled' then return {'closed', s[1]} end
call('HSET', key, 'sealed', 1, 'sealed_at', int(clock()))
for g = 0, 2 do call('UNLINK', key .. ':f' .. g) end
call('HDEL', key, 'prints')
sync_run(id)
advance()
finish_if_done(id)
return {'sealed', is_attached()}
