-- include: lib cutting noting
-- Write a grant of speed, or end one.  KEYS[1] account.  ARGV: cut delay µs, a line for the audit trail, then "new", from µs, until µs, µs between
-- messages, JSON, a key of its caller's ("" none), digest of what was asked under it; or "end", number.  The clock is cut first, at the speed of
-- before. Those over for more than 30 days are forgotten.  Under the same key nothing is granted twice.
-- Replies {number, cut number, cut µs}, {0} where another grant has the key, or {} when there is no such account, no such grant, or it is over.
if call('EXISTS', A) == 0 then return {} end
local KEPT = 30 * 86400e6
local now, number, value = clock(), nil, nil
if ARGV[3] == 'new' then
  local known, digest = string.match(ARGV[8] ~= '' and call('HGET', A, 'boosted:' .. ARGV[8]) or '', '^(%d+) %d+ (.*)$')
  if known then
    local told = call('HMGET', A, 'cut', 'cut_at')
    return digest == ARGV[9] and {tonumber(known), num(told[1]), told[2] or '0'} or {0}
  end
  number = num(call('HGET', A, 'boosts')) + 1
  value = pack('<ddd', tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])) .. ARGV[7]
else
  number, value = tonumber(ARGV[4]), call('HGET', A, 'boost:' .. ARGV[4])
  if not value then return {} end
  local from, till, interval = unpack_('<ddd', value)
  if till <= now then return {} end
  value = pack('<ddd', math.min(from, now), now, interval) .. sub(value, 25)
end
local cut_number, at = cut(now, tonumber(ARGV[1]))
call('HSET', A, 'boost:' .. number, value, 'boosts', math.max(number, num(call('HGET', A, 'boosts'))))
if ARGV[3] == 'new' and ARGV[8] ~= '' then
  call('HSET', A, 'boosted:' .. ARGV[8], number .. ' ' .. int(tonumber(ARGV[5])) .. ' ' .. ARGV[9])
end
local all, grants = call('HGETALL', A), {}
for i = 1, #all, 2 do
  if sub(all[i], 1, 6) == 'boost:' then
    local _, till = unpack_('<dd', all[i + 1])
    if till > now then grants[#grants + 1] = sub(all[i + 1], 1, 24)
    elseif till < now - KEPT then call('HDEL', A, all[i]) end
  elseif sub(all[i], 1, 8) == 'boosted:' and tonumber(string.match(all[i + 1], ' (%d+) ')) < now - KEPT then call('HDEL', A, all[i]) end
end
if #grants > 0 then call('HSET', A, 'grants', table.concat(grants)) else call('HDEL', A, 'grants') end
note(now, ARGV[2])
return {number, cut_number, int(at)}
