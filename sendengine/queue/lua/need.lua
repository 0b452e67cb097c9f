-- include: lib masks states forgetting needing
-- What would bring a worker to this account; on the way, old single messages are forgotten.  KEYS[1] account.
-- Replies {next need µs (0 now, -1 never), leases, 1 when something is due now or waits for a retry (a schedule does not count),
-- then token, worker pairs}.
local now = clock()
local need, retention = next_need(now), call('HGET', send_key(TRANSACTIONAL), 'retention')
if retention then forget_old(now, retention, 20) end
local has_work = need == 0 or (need > 0 and need <= now)
has_work = has_work or not shut_since(now) and call('EXISTS', A .. ':again', send_key(TRANSACTIONAL) .. ':w') > 0
local out = {int(need), call('HLEN', A .. ':lease'), has_work and 1 or 0}
local all = call('HGETALL', A .. ':lease')
for i = 1, #all, 2 do
  local _, _, _, _, _, worker = lease_unpack(all[i + 1])
  out[#out + 1] = all[i]
  out[#out + 1] = worker
end
return out
