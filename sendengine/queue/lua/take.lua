-- include: lib taking
-- Take batches for a worker: READY rows become LEASED (design 3.1.3).  KEYS[1] account.
-- ARGV: worker, rows wanted per campaign (of retries, and of the others), tokens (8 octets each, one a lease at most),
--       number of ids of which the worker has enough first tries, these ids, then the ids of which it has enough retries.
-- Retries that are due come first, then what was given back, then the streams by level.
-- Replies: next need µs (0 now, -1 never), next look µs (schedule, window or retry; -1 never), campaigns whose window must be looked at,
--          leases: token, id, batch, mask, histories, stored batch, message (transactional), µs that do not count against lifetimes,
--          workers that died of it.
local grant = {now = clock(), worker = ARGV[1], want = tonumber(ARGV[2]), tokens = {}, leases = {}}
for i = 1, #ARGV[3], 8 do grant.tokens[#grant.tokens + 1] = sub(ARGV[3], i, i + 7) end
local has_first, has_retries, look, n = {}, {}, {}, tonumber(ARGV[4])
for i = 5, #ARGV do (i < 5 + n and has_first or has_retries)[ARGV[i]] = true end
for _, id in ipairs(call('ZRANGEBYSCORE', A .. ':at', '-inf', grant.now, 'LIMIT', 0, 100)) do
  local s = call('HMGET', send_key(id), 'window', 'state')
  if s[1] and s[1] ~= '' then look[#look + 1] = id elseif s[2] == 'scheduled' then start(id) else call('ZREM', A .. ':at', id) end
end
local ids, wake = call('ZRANGE', A .. ':run', 0, 99), -1
if call('EXISTS', send_key(TRANSACTIONAL)) == 1 then table.insert(ids, 1, TRANSACTIONAL) end
local function earliest(set)
  local at = tonumber(call('ZRANGE', set, 0, 0, 'WITHSCORES')[2])
  if at and (wake < 0 or at < wake) then wake = at end
end
for _, id in ipairs(ids) do
  local key = send_key(id)
  local s = call('HMGET', key, 'reversed', 'idle', 'killed')
  local campaign = {id = id, key = key, reversed = s[1], idle = s[2], killed = s[3]}
  if not has_retries[id] then take_retries(grant, campaign) earliest(key .. ':w') end
  if not has_first[id] then take_first_tries(grant, campaign) end
end
earliest(A .. ':at')
return {int(next_need()), int(wake), look, grant.leases}
