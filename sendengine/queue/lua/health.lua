-- include: lib
-- How the account's e-mail fared within the last hours: what its campaigns' counts rose by since the last look goes to the hour's sums.
-- KEYS[1] B.  ARGV: hours.   Replies {sent, bounced, complaints}. The first look only notes where the counts stand.
-- B:health: at = µs of the last look, c<campaign> = its counts then, h<hour> = "sent bounced", x<hour> = complaints (complaining.lua).
local key, now, ids, sums = B .. ':health', clock(), {}, {0, 0, 0}
if call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1 then return sums end
local hour, oldest, at = math.floor(now / 3600e6), math.floor(now / 3600e6) - ARGV[1], call('HGET', key, 'at')
for _, id in ipairs(call('SMEMBERS', B .. ':open')) do ids[id] = true end
for _, id in ipairs(at and call('ZRANGEBYSCORE', B .. ':sends', at, '+inf') or {}) do ids[id] = ids[id] or false end
for _, field in ipairs(call('HKEYS', key)) do
  local kind, rest = sub(field, 1, 1), sub(field, 2)
  if kind == 'c' then ids[rest] = ids[rest] or false
  elseif (kind == 'h' or kind == 'x') and tonumber(rest) <= oldest then call('HDEL', key, field) end
end
local sent, bounced = 0, 0
for id, is_open in pairs(ids) do
  local s = call('HMGET', send_key(id), 'sent', 'bounced')
  local before = call('HGET', key, 'c' .. id)
  local old_sent, old_bounced = string.match(before or '0 0', '^(%d+) (%d+)$')
  if at then sent, bounced = sent + num(s[1]) - old_sent, bounced + num(s[2]) - old_bounced end
  if is_open then call('HSET', key, 'c' .. id, num(s[1]) .. ' ' .. num(s[2])) else call('HDEL', key, 'c' .. id) end
end
local old_sent, old_bounced = string.match(call('HGET', key, 'h' .. hour) or '0 0', '^(%d+) (%d+)$')
call('HSET', key, 'at', int(now), 'h' .. hour, int(old_sent + math.max(0, sent)) .. ' ' .. int(old_bounced + math.max(0, bounced)))
local all = call('HGETALL', key)
for i = 1, #all, 2 do
  local kind = sub(all[i], 1, 1)
  if kind == 'h' then
    local s, b = string.match(all[i + 1], '^(%d+) (%d+)$')
    sums[1], sums[2] = sums[1] + s, sums[2] + b
  elseif kind == 'x' then sums[3] = sums[3] + all[i + 1] end
end
return sums
