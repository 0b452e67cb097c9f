-- include: speed
-- Cut (design 3.2): permits later than now + delay, granted under a smaller number, are void; the clock goes back on its grid.
-- Where the rate changes between the cut and the last permit, no further than an interval before the cut (docs/design/009).
-- above: a number that workers have heard of, though a failover may have lost it.
local function cut(now, delay, above)
  local a = call('HMGET', A, 'iv', 'last', 'cut', 'grants')
  local last, at = num(a[2]), now + delay
  if last > at then
    local grid, before = speed(num(a[1]), a[4], last), speed(num(a[1]), a[4], at)
    if grid > 0 then last = last - math.ceil((last - at) / grid) * grid end
    if before ~= grid then last = math.max(last, at - before) end
  end
  local number = math.max(num(a[3]), above or 0) + 1
  call('HSET', A, 'last', string.format('%.3f', last), 'cut', number, 'cut_at', int(at))
  return number, at
end
