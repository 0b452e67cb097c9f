-- include: lib
-- Somebody complained of an account's mail.  KEYS[1] B.  ARGV: how many; hours after which they are forgotten.
-- Replies 1, or 0 when there is no such account, or its purge has begun.
if call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1 then return 0 end
local key, hour = B .. ':health', math.floor(clock() / 3600e6)
if call('HINCRBY', key, 'x' .. int(hour), ARGV[1]) == tonumber(ARGV[1]) then   -- an hour begins: the old ones go
  for _, field in ipairs(call('HKEYS', key)) do
    if sub(field, 1, 1) == 'x' and tonumber(sub(field, 2)) <= hour - ARGV[2] then call('HDEL', key, field) end
  end
end
return 1
