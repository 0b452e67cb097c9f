-- include: lib masks forgetting
-- Queue one transactional message: a batch of one row in the account's campaign "transactional".  KEYS[1] account.
-- ARGV: payload, message, retention s, the message's key, digest (8) of what the caller said.  A repeat under the same key changes nothing; the
--       zeros of a message that the release before queued are anybody's repeat.
-- Replies {'stored' or 'same', number, attached}, {'differs', number, attached}: the key is another message's; {'missing'}: the campaign was not made yet;
-- {'credit', needed, free}.
local key, now = send_key(TRANSACTIONAL), clock()
local k = call('HGET', key, 'batches')
if not k then return {'missing'} end
local standing = call('HGET', key .. ':i', ARGV[4])
if standing then
  local digest = sub(call('HGET', key .. ':p', standing) or '', 1, 8)
  local is_same = digest == ARGV[5] or not string.find(digest, '[^%z]')
  return {is_same and 'same' or 'differs', tonumber(standing), is_attached()}
end
local refused = reserve and reserve(TRANSACTIONAL, k, {0}, '\0')
if refused then return refused end
call('HSET', key .. ':i', ARGV[4], k, '#' .. k, ARGV[4])
call('HSET', key .. ':p', k, ARGV[5] .. mask_of({0}) .. ARGV[1])
call('HSET', key .. ':x', k, ARGV[2])
call('XADD', key .. ':q0', (k + 1) .. '-0', 'm', mask_of({0}))
call('HINCRBY', key, 'batches', 1)
call('HINCRBY', key, 'rows', 1)
call('HINCRBY', key, 'accepted', 1)
forget_old(now, ARGV[3], 2)
return {'stored', tonumber(k), is_attached()}
