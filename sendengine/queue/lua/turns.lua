-- Which of the campaigns that may send have work: A:ready those with READY rows, by what they were served; A:again those with retries, by the
-- earliest. Kept true by whoever moves rows or the run set, so a take looks at no campaign that only waits (docs/design/012).
local function has_ready(key)
  local q = key .. ':q'
  return call('EXISTS', key .. ':b', q .. 0, q .. 1, q .. 2, q .. 3, q .. 4, q .. 5, q .. 6, q .. 7, q .. 8, q .. 9) > 0
end
local function note_work(id)
  if id == TRANSACTIONAL then return end
  local key, served = send_key(id), call('ZSCORE', A .. ':run', id)
  if served and has_ready(key) then call('ZADD', A .. ':ready', served, id) else call('ZREM', A .. ':ready', id) end
  local due = served and call('ZRANGE', key .. ':w', 0, 0, 'WITHSCORES')[2]
  if due then call('ZADD', A .. ':again', due, id) else call('ZREM', A .. ':again', id) end
end
