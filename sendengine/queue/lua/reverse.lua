-- include: lib states noting
-- Swap the order of what is not taken yet. An unsealed campaign waits for its seal while it is reversed.  KEYS[1] account.  ARGV: campaign,
-- a line for the audit trail.
-- Replies {'done', reversed 0/1} or {'closed', state}.
local key = send_key(ARGV[1])
local s = call('HMGET', key, 'state', 'reversed')
if ARGV[1] == TRANSACTIONAL or not s[1] or s[1] == 'cancelled' or s[1] == 'finished' then return {'closed', s[1] or 'missing'} end
local reversed = s[2] == '1' and 0 or 1
call('HSET', key, 'reversed', reversed)
sync_run(ARGV[1])
note(clock(), ARGV[2])
return {'done', reversed}
