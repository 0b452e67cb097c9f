-- include: lib masks states
-- Take batches for a worker: READY rows become LEASED (design 3.1.3).  KEYS[1] account.
-- ARGV: worker, rows wanted per campaign, tokens (8 octets each, one a lease at most), ids that need nothing.
-- Retries that are due come first, then what was given back, then the streams by level. Each entry read is deleted by the same script that
-- writes its lease, so a row stands in exactly one place.
-- Replies: next need µs (0 now, -1 never), campaigns whose window must be looked at, leases: token, id, batch, mask, histories, stored batch, message (transactional).
local now, worker, want, tokens = clock(), ARGV[1], tonumber(ARGV[2]), ARGV[3]
local skip, leases, used, look = {}, {}, 0, {}
for i = 4, #ARGV do skip[ARGV[i]] = true end
for _, id in ipairs(call('ZRANGEBYSCORE', A .. ':at', '-inf', now, 'LIMIT', 0, 100)) do
  local s = call('HMGET', send_key(id), 'window', 'state')
  if s[1] and s[1] ~= '' then look[#look + 1] = id elseif s[2] == 'scheduled' then start(id) else call('ZREM', A .. ':at', id) end
end
local function lease(id, key, k, level, mask, past)
  local token = sub(tokens, used * 8 + 1, used * 8 + 8)
  used = used + 1
  call('HSET', A .. ':lease', token, lease_pack(mask, k, level, now, id, worker, past))
  local n = count(mask)
  call('HINCRBY', key, 'leased', n)
  leases[#leases + 1] = {token, id, k, mask, past, call('HGET', key .. ':p', k), id == TRANSACTIONAL and call('HGET', key .. ':x', k) or ''}
  return n
end
local function is_full() return used * 8 >= #tokens end
local function due_retries(id, key)
  local got = 0
  for _, k in ipairs(call('ZRANGEBYSCORE', key .. ':w', '-inf', now, 'LIMIT', 0, 20)) do
    if is_full() or got >= want then break end
    local entries, rows, past, rest, earliest = call('HGET', key .. ':r', k) or '', {}, {}, {}, nil
    for i = 1, #entries, 14 do
      local due = unpack_('<d', entries, i + 6)
      if due <= now + 5e4 then
        rows[#rows + 1] = byte(entries, i)
        past[#past + 1] = sub(entries, i, i + 5)
      else
        rest[#rest + 1] = sub(entries, i, i + 13)
        if not earliest or due < earliest then earliest = due end
      end
    end
    if earliest then call('HSET', key .. ':r', k, table.concat(rest)) call('ZADD', key .. ':w', int(earliest), k)
    else call('HDEL', key .. ':r', k) call('ZREM', key .. ':w', k) end
    if #rows > 0 then
      call('HINCRBY', key, 'deferred', -#rows)
      got = got + lease(id, key, tonumber(k), 0, mask_of(rows), table.concat(past))
    end
  end
  return got
end
local function take(id)
  local key = send_key(id)
  local got = due_retries(id, key)
  while got < want and not is_full() do
    local v = call('LPOP', key .. ':b')
    if not v then break end
    local k, level = unpack_('<I4B', v)
    got = got + lease(id, key, k, level, sub(v, 6, 18), sub(v, 19))
  end
  local range = call('HGET', key, 'reversed') == '1' and {'XREVRANGE', '+', '-'} or {'XRANGE', '-', '+'}
  for level = 9, 0, -1 do
    while got < want and not is_full() do
      local entries = call(range[1], key .. ':q' .. level, range[2], range[3], 'COUNT', 1)
      if not entries[1] then break end
      local entry = entries[1]
      call('XDEL', key .. ':q' .. level, entry[1])
      if call('XLEN', key .. ':q' .. level) == 0 then call('DEL', key .. ':q' .. level) end
      got = got + lease(id, key, tonumber(string.match(entry[1], '^%d+')) - 1, level, entry[2][2], '')
    end
    if got >= want then break end
  end
end
if not skip[TRANSACTIONAL] and call('EXISTS', send_key(TRANSACTIONAL)) == 1 then take(TRANSACTIONAL) end
for _, id in ipairs(call('ZRANGE', A .. ':run', 0, 99)) do
  if is_full() then break end
  if not skip[id] then take(id) end
end
return {int(next_need()), look, leases}
