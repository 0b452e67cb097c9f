-- include: turns gating
-- When does this account need a worker next? 0: now; -1: never, as things stand; so while its gate is shut.
local function next_need(now)
  if shut_since(now) then return -1 end
  local need = -1
  local function earliest(set)
    local first = tonumber(call('ZRANGE', set, 0, 0, 'WITHSCORES')[2])
    if first and (need < 0 or first < need) then need = first end
  end
  local key = send_key(TRANSACTIONAL)
  if call('EXISTS', A .. ':ready') == 1 or has_ready(key) then return 0 end
  earliest(key .. ':w')
  earliest(A .. ':again')
  earliest(A .. ':at')
  return need
end
