-- Shared: people complained of an account's mail, by the hour; forgotten after so many hours.
local function complain(n, kept)
  local key, hour = B .. ':health', math.floor(clock() / 3600e6)
  if call('HINCRBY', key, 'x' .. int(hour), n) > n then return end
  for _, field in ipairs(call('HKEYS', key)) do     -- an hour begins: the old ones go
    if sub(field, 1, 1) == 'x' and tonumber(sub(field, 2)) <= hour - kept then call('HDEL', key, field) end
  end
end
