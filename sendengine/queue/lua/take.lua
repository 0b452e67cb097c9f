-- include: lib taking needing
-- Take batches for a worker: READY rows become LEASED (design 3.1.3).  KEYS[1] account.
-- ARGV: worker, rows wanted per campaign (of retries, and of the others), tokens (8 octets each, one a lease at most),
--       number of ids of which the worker has enough first tries, these ids, then the ids of which it has enough retries.
-- Of the campaigns with something to take, whether many more wait or not (turns.lua), the least served come first, at most MOST with READY
-- rows and MOST with retries that are due: those of which the worker has enough use up no place. In each, retries that are due come first, then what was given back, then the streams by level.
-- Replies: next need µs (0 now, -1 never), next look µs (schedule, window or retry; -1 never), campaigns whose window must be looked at,
--          leases: token, id, batch, mask, histories, stored batch, message (transactional), µs that do not count against lifetimes,
--          workers that died of it. While the gate is shut there is nothing to take, and nothing to look at.
local grant = {now = clock(), worker = ARGV[1], want = tonumber(ARGV[2]), tokens = {}, leases = {}}
if shut_since(grant.now) then return {'-1', '-1', {}, {}} end
for i = 1, #ARGV[3], 8 do grant.tokens[#grant.tokens + 1] = sub(ARGV[3], i, i + 7) end
local has_first, has_retries, look, n = {}, {}, {}, tonumber(ARGV[4])
for i = 5, #ARGV do (i < 5 + n and has_first or has_retries)[ARGV[i]] = true end
for _, id in ipairs(call('ZRANGEBYSCORE', A .. ':at', '-inf', grant.now, 'LIMIT', 0, 100)) do
  local s = call('HMGET', send_key(id), 'window', 'state')
  if s[1] and s[1] ~= '' then look[#look + 1] = id elseif s[2] == 'scheduled' then start(id) else call('ZREM', A .. ':at', id) end
end
local ids, served, wake, given, MOST = {}, {}, -1, #ARGV - 4, 100
local function gather(found, has)
  local places = MOST
  for _, id in ipairs(found) do
    if places > 0 and not has[id] then
      places = places - 1
      local score = not served[id] and call('ZSCORE', A .. ':run', id)
      if score then served[id] = tonumber(score) ids[#ids + 1] = id end
    end
  end
end
gather(call('ZRANGE', A .. ':ready', 0, MOST + given - 1), has_first)
gather(call('ZRANGEBYSCORE', A .. ':again', '-inf', grant.now, 'LIMIT', 0, MOST + given), has_retries)
table.sort(ids, function(a, b) return served[a] < served[b] or served[a] == served[b] and a < b end)
if call('EXISTS', send_key(TRANSACTIONAL)) == 1 then table.insert(ids, 1, TRANSACTIONAL) end
local function earliest(set, has)
  local found = call('ZRANGE', set, 0, has and given or 0, 'WITHSCORES')
  for i = 1, #found, 2 do
    local at = tonumber(found[i + 1])
    if not (has and has[found[i]]) then
      if wake < 0 or at < wake then wake = at end
      return
    end
  end
end
for _, id in ipairs(ids) do
  local key = send_key(id)
  local s = call('HMGET', key, 'reversed', 'idle', 'killed')
  local campaign = {id = id, key = key, reversed = s[1], idle = s[2], killed = s[3]}
  if not has_retries[id] then take_retries(grant, campaign) end
  if not has_first[id] then take_first_tries(grant, campaign) end
  note_work(id)
end
if not has_retries[TRANSACTIONAL] then earliest(send_key(TRANSACTIONAL) .. ':w') end
earliest(A .. ':again', has_retries)
earliest(A .. ':at')
return {int(next_need(grant.now)), int(wake), look, grant.leases}
