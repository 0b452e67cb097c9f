-- include: lib masks
-- Queue one transactional message: a batch of one row in the account's campaign "transactional".  KEYS[1] account.
-- ARGV: payload, message, retention s.  What ended longer than that ago is forgotten, two at a time, so nothing piles up.
-- Replies {number, attached}, or {} when the campaign was not made yet.
local key, now = send_key(TRANSACTIONAL), clock()
local k = call('HGET', key, 'batches')
if not k then return {} end
call('HSET', key .. ':p', k, string.rep('\0', 8) .. mask_of({0}) .. ARGV[1])
call('HSET', key .. ':x', k, ARGV[2])
call('XADD', key .. ':q0', (k + 1) .. '-0', 'm', mask_of({0}))
call('HINCRBY', key, 'batches', 1)
call('HINCRBY', key, 'rows', 1)
call('HINCRBY', key, 'accepted', 1)
for _, entry in ipairs(call('XRANGE', key .. ':o', '-', int((now / 1e6 - ARGV[3]) * 1e3), 'COUNT', 2)) do
  call('HDEL', key .. ':p', entry[2][2])
  call('HDEL', key .. ':x', entry[2][2])
  call('HDEL', key .. ':d', entry[2][2] .. ':0')
  call('XDEL', key .. ':o', entry[1])
end
return {tonumber(k), is_attached()}
