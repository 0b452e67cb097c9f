-- include: lib
-- Shared: single messages that ended longer ago than their retention are forgotten, so many at a time.
local function forget_old(now, retention, most)
  local key = send_key(TRANSACTIONAL)
  for _, entry in ipairs(call('XRANGE', key .. ':o', '-', int((now / 1e6 - retention) * 1e3), 'COUNT', most)) do
    local k = entry[2][2]
    local name = call('HGET', key .. ':i', '#' .. k)
    if name then call('HDEL', key .. ':i', name, '#' .. k) end
    call('HDEL', key .. ':p', k)
    call('HDEL', key .. ':x', k)
    call('HDEL', key .. ':$', k)
    call('HDEL', key .. ':s', k .. ':0')
    call('HDEL', key .. ':d', k .. ':0')
    call('XDEL', key .. ':o', entry[1])
  end
end
