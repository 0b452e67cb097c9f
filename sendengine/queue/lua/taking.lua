-- include: masks states
-- Shared by take: a lease is written by the same script that removes its rows from where they stood, so a row stands in one place.
local function lease(grant, campaign, k, level, mask, past)
  local token = table.remove(grant.tokens)
  call('HSET', A .. ':lease', token, lease_pack(mask, k, level, grant.now, campaign.id, grant.worker, past))
  local n, message = count(mask), ''
  call('HINCRBY', campaign.key, 'leased', n)
  if campaign.id == TRANSACTIONAL then message = call('HGET', campaign.key .. ':x', k) end
  grant.leases[#grant.leases + 1] =
    {token, campaign.id, k, mask, past, call('HGET', campaign.key .. ':p', k), message or '', campaign.idle or '0',
      campaign.killed and call('HGET', campaign.key .. ':k', k) or '0'}
  return n
end
local function take_retries(grant, campaign)
  local key, got = campaign.key, 0
  for _, k in ipairs(call('ZRANGEBYSCORE', key .. ':w', '-inf', grant.now, 'LIMIT', 0, 20)) do
    if #grant.tokens == 0 or got >= grant.want then break end
    local entries, rows, past, rest, earliest = call('HGET', key .. ':r', k) or '', {}, {}, {}, nil
    for i = 1, #entries, 14 do
      local due = unpack_('<d', entries, i + 6)
      if due <= grant.now + 5e4 then
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
      got = got + lease(grant, campaign, tonumber(k), 0, mask_of(rows), table.concat(past))
    end
  end
end
local function take_first_tries(grant, campaign)
  local key, got = campaign.key, 0
  while got < grant.want and #grant.tokens > 0 do
    local v = call('LPOP', key .. ':b')
    if not v then break end
    local k, level = unpack_('<I4B', v)
    got = got + lease(grant, campaign, k, level, sub(v, 6, 18), sub(v, 19))
  end
  local range = campaign.reversed == '1' and {'XREVRANGE', '+', '-'} or {'XRANGE', '-', '+'}
  for level = 9, 0, -1 do
    local stream = key .. ':q' .. level
    while got < grant.want and #grant.tokens > 0 do
      local entry = call(range[1], stream, range[2], range[3], 'COUNT', 1)[1]
      if not entry then break end
      call('XDEL', stream, entry[1])
      if call('XLEN', stream) == 0 then call('DEL', stream) end
      got = got + lease(grant, campaign, tonumber(string.match(entry[1], '^%d+')) - 1, level, entry[2][2], '')
    end
  end
end
