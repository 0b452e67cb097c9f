-- include: lib masks forgetting
-- Queue one transactional message: a batch of one row in the account's campaign "transactional".  KEYS[1] account.
-- ARGV: payload, message, retention s, the message's key.  A repeat under the same key changes nothing.
-- Replies {number, attached}, or {} when the campaign was not made yet.
local key, now = send_key(TRANSACTIONAL), clock()
local k = call('HGET', key, 'batches')
if not k then return {} end
local standing = call('HGET', key .. ':i', ARGV[4])
if standing then return {tonumber(standing), is_attached()} end
call('HSET', key .. ':i', ARGV[4], k, '#' .. k, ARGV[4])
call('HSET', key .. ':p', k, string.rep('\0', 8) .. mask_of({0}) .. ARGV[1])
call('HSET', key .. ':x', k, ARGV[2])
call('XADD', key .. ':q0', (k + 1) .. '-0', 'm', mask_of({0}))
call('HINCRBY', key, 'batches', 1)
call('HINCRBY', key, 'rows', 1)
call('HINCRBY', key, 'accepted', 1)
forget_old(now, ARGV[3], 2)
return {tonumber(k), is_attached()}
