-- include: lib cutting
-- Write a grant of speed, or end one.  KEYS[1] account.  ARGV: cut delay µs, then "new", from µs, until µs, µs between messages, JSON;
-- or "end", number.  The clock is cut first, at the speed of before. Those over for more than 30 days are forgotten.
-- Replies {number, cut number, cut µs}, or {} when there is no such account, no such grant, or it is over.
if call('EXISTS', A) == 0 then return {} end
local now, number, value = clock(), nil, nil
if ARGV[2] == 'new' then
  number = num(call('HGET', A, 'boosts')) + 1
  value = pack('<ddd', tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])) .. ARGV[6]
else
  number, value = tonumber(ARGV[3]), call('HGET', A, 'boost:' .. ARGV[3])
  if not value then return {} end
  local from, till, interval = unpack_('<ddd', value)
  if till <= now then return {} end
  value = pack('<ddd', math.min(from, now), now, interval) .. sub(value, 25)
end
local cut_number, at = cut(now, tonumber(ARGV[1]))
call('HSET', A, 'boost:' .. number, value, 'boosts', math.max(number, num(call('HGET', A, 'boosts'))))
local all, grants = call('HGETALL', A), {}
for i = 1, #all, 2 do
  if sub(all[i], 1, 6) == 'boost:' then
    local _, till = unpack_('<dd', all[i + 1])
    if till > now then grants[#grants + 1] = sub(all[i + 1], 1, 24)
    elseif till < now - 30 * 86400e6 then call('HDEL', A, all[i]) end
  end
end
if #grants > 0 then call('HSET', A, 'grants', table.concat(grants)) else call('HDEL', A, 'grants') end
return {number, cut_number, int(at)}
