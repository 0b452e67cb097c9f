-- Shared: the interval in force at a time, of the tier's own (0 unmetered) and the grants: from µs, until µs, interval, 24 octets each.
-- The fastest holds (domain 1.9). Returns it, and when it may change next (nil: never).
local function speed(own, grants, t)
  local interval, turn = own, nil
  if not grants or own == 0 then return own, nil end
  for i = 1, #grants, 24 do
    local from, till, boosted = unpack_('<ddd', grants, i)
    if from <= t and t < till and boosted < interval then interval = boosted end
    local change = from > t and from or till
    if change > t and (not turn or change < turn) then turn = change end
  end
  return interval, turn
end
