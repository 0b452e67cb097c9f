-- include: lib sealing standing noting
-- The list is complete: from here on the campaign has an N, a final estimate, and can finish.  KEYS[1] account.
-- ARGV: campaign, batches, digests of the last one as in standing.lua ("": whatever stands), a line for the audit trail, "1": only if no
--       list is `unended` (unended.lua).
-- Replies {'sealed', attached}, {'same'}, {'expected', batches stored}, {'apart'}: another list stands, {'closed', state}, {'unended'}.
local id, key = ARGV[1], send_key(ARGV[1])
local s = call('HMGET', key, 'state', 'sealed', 'batches', 'unended')
if not s[1] then return {'closed', 'missing'} end
if num(s[3]) ~= tonumber(ARGV[2]) then return {'expected', num(s[3])} end
if ARGV[3] ~= '' and not stands_as(call('HGET', key .. ':p', ARGV[2] - 1) or '', ARGV[3]) then return {'apart'} end
if s[2] == '1' then return {'same'} end
if s[1] == 'cancelled' then return {'closed', s[1]} end
if ARGV[5] == '1' and s[4] then return {'unended'} end
conclude(id)
note(clock(), ARGV[4])
return {'sealed', is_attached()}
