-- include: lib speed
-- A visit: outcomes in, permits out (design 3.1.4).  KEYS[1] account.
-- ARGV: permits wanted, horizon µs, lead µs (a clock that fell behind starts so late), binding ("limit|lift", "" nothing binds, "=" no change;
--       the same limit with another lift binds since the same time), number of campaigns held, their ids, then per settlement 10: token,
--       final mask, records, dictionary, nums, deferred, doubts, mask of rows given back ("" none), blame: "", "suspect" or "kill"
--       (docs/design/010), marks on addresses (docs/design/017).
-- Permits end before the rate changes, and before the term does; those beyond it are spaced at the rate that holds there (docs/design/009).
-- Replies: now µs, cut number, cut µs, permits n, delay of the first µs, µs between (0 unmetered), deal (one octet a permit: place in the
--          held list; "" when there is one), held campaigns that may not send now (octets), µs that the relay refused, settlements that
--          acted, 1 when one of the line has begun, µs at which the term ends ("0": no end, or it is over), changes of the list of suppressed
--          addresses (-1: there is none), 1/1000 credit that the settlements spent. While the gate is shut all held campaigns may not send.
-- Never writes for a lease that does not stand, so a purged account is not re-created. Settlements need settle.lua, which includes this.
local now = clock()
local held, at, acted = {}, 6 + tonumber(ARGV[5]), {}
for i = 6, at - 1 do held[#held + 1] = ARGV[i] end
for i = at, #ARGV, 10 do acted[#acted + 1] = settle(now, unpack(ARGV, i, i + 9)) end
local a = call('HMGET', A, 'iv', 'last', 'cut', 'cut_at', 'idle', 'bind', 'grants', 'gate', 'sup')
if not a[1] then return {int(now), 0, '0', 0, '0', '0', '', '', '0', acted, 0, '0', -1, charged} end
if A ~= B then
  local b = call('HMGET', B, 'gate', 'sup')
  a[8], a[9] = b[1], b[2]
end
local gate = tonumber(a[8])
local is_shut = gate and now >= gate
local last, iv, turn = num(a[2]), speed(tonumber(a[1]), a[7], now)
if a[7] and not turn and a[1] ~= '0' then call('HDEL', A, 'grants') end   -- all are over
if ARGV[4] ~= '=' then
  local limit, since = string.match(a[6] or '', '^([%a_]*)|(%d*)')
  local new, lift = string.match(ARGV[4], '^([%a_]*)|?(.*)')
  if limit ~= new and (limit == 'relay' or limit == 'site') then           -- as idle_until in gating.lua
    local from = is_shut and math.min(since, num(call('HGET', B, 'closed_at') or gate)) or since
    a[5] = call('HINCRBY', A, 'idle', int(math.max(0, now - math.max(from, num(call('HGET', A, 'idle_at'))))))
    call('HSET', A, 'idle_at', int(now))
  end
  if new ~= '' then call('HSET', A, 'bind', new .. '|' .. (limit == new and since or int(now)) .. '|' .. lift)
  elseif limit then call('HDEL', A, 'bind') end
end
local stopped, sharers, most, is_held = {}, {}, 0, false
if is_shut then
  for i = 1, #held do stopped[i] = string.char(i - 1) end
  held = {}
end
local scores = #held > 0 and call('ZMSCORE', A .. ':run', unpack(held)) or {}
for i, id in ipairs(held) do
  local served = tonumber(scores[i])
  if id == TRANSACTIONAL then is_held = true
  elseif not served then stopped[#stopped + 1] = string.char(i - 1)
  else
    sharers[#sharers + 1] = {i - 1, served, id}
    if served > most then most = served end
  end
end
local n, first, want, horizon = 0, now, tonumber(ARGV[1]), tonumber(ARGV[2])
if want > 0 and (is_held or #sharers > 0) then
  if iv == 0 then n = want
  else
    local latest = now + math.max(horizon, 6.5e6) + iv      -- nobody asks further ahead: Redis' clock stepped back
    if last > latest then last = latest call('HSET', A, 'last', string.format('%.3f', last)) end
    local function soonest(from) return math.max(last + iv, from, now + tonumber(ARGV[3]) - math.min(10000, iv)) end
    first = soonest(0)
    while turn and first >= turn do
      local from = turn
      iv, turn = speed(tonumber(a[1]), a[7], from)
      first = soonest(from)
    end
    local upto = math.min(now + horizon, (turn or 1e18) - 1, (gate or 1e18) - 1)
    n = math.max(0, math.min(want, math.floor((upto - first) / iv) + 1))
    if n > 0 then call('HSET', A, 'last', string.format('%.3f', first + (n - 1) * iv)) end
  end
end
local deal = {}
if n > 0 and #sharers > 1 then
  for _, s in ipairs(sharers) do s[2] = math.max(s[2], most - 2 * n) end   -- who had no work saves up no more than a little
  for i = 1, n do
    local best = sharers[1]
    for _, s in ipairs(sharers) do if s[2] < best[2] then best = s end end
    best[2] = best[2] + 1
    deal[i] = string.char(best[1])
  end
  for _, s in ipairs(sharers) do
    call('ZADD', A .. ':run', 'XX', int(s[2]), s[3])
    call('ZADD', A .. ':ready', 'XX', int(s[2]), s[3])
  end
elseif n > 0 and #sharers == 1 and call('ZCARD', A .. ':run') > 1 then
  call('ZADD', A .. ':ready', 'XX', call('ZINCRBY', A .. ':run', n, sharers[1][3]), sharers[1][3])
end
return {int(now), num(a[3]), a[4] or '0', n, string.format('%.1f', first - now), string.format('%.3f', iv), table.concat(deal), table.concat(stopped),
  a[5] or '0', acted, begun, gate and not is_shut and int(gate) or '0', tonumber(a[9] or -1), charged}
