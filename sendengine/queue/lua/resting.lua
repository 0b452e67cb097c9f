-- include: gating
-- Paused or outside its window, no lifetime runs: `resting` since then, `idle` µs in all. Both at once count once, and so does what is idle
-- time of the whole lane anyway: `rested` is how much that was when the rest began.
local function sync_rest(id, now)
  local s = call('HMGET', send_key(id), 'state', 'open', 'resting', 'rested')
  local rests = s[1] == 'paused' or s[2] == '0'
  if rests and not s[3] then call('HSET', send_key(id), 'resting', int(now), 'rested', int(idle_until(now)))
  elseif s[3] and not rests then
    local counted = s[4] and idle_until(now) - s[4] or 0
    call('HINCRBY', send_key(id), 'idle', int(math.max(0, now - s[3] - counted)))
    call('HDEL', send_key(id), 'resting', 'rested')
  end
end
