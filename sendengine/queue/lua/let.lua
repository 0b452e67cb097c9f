-- include: lib turns
-- Is this campaign let send, and found by takes if it has work (turns.lua)?  KEYS[1] account.  ARGV: campaign.  Replies 1 or 0.
local id, key = ARGV[1], send_key(ARGV[1])
if not call('ZSCORE', A .. ':run', id) then return 0 end
local due, noted = call('ZRANGE', key .. ':w', 0, 0, 'WITHSCORES')[2] or false, call('ZSCORE', A .. ':again', id)
if id == TRANSACTIONAL or has_ready(key) == (call('ZSCORE', A .. ':ready', id) and true or false) and due == noted then return 1 end
return 0
