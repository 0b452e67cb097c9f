-- Shared: holds that come and go are noted for the webhooks out, in the state of looking: no state tells of one that ended before a look.
-- `held` of B:hooked: a line each, the µs and what was placed (+) or lifted (-). Full, the rest is told as what stands at the look.
local HELD_OCTETS = 4000
local function note_held(now, moves)
  local key = B .. ':hooked'
  if moves == '' or call('HEXISTS', key, 'since') == 0 then return end
  local held = call('HGET', key, 'held') or ''
  call('HINCRBY', key, 'v', 1)
  if #held < HELD_OCTETS then call('HSET', key, 'held', held .. int(now) .. moves .. '\n') end
end
