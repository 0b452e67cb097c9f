-- include: lib
-- The purge of an account begins: from here on nothing changes its term, and nothing new comes to it.  KEYS[1] B.
-- ARGV: µs before which it is too early, then field, value pairs that must be as the caller saw them ("" absent).
-- Replies done; same (it has begun); missing; early; moved (its term is another one: read again).
local now = clock()
if call('EXISTS', B) == 0 then return 'missing' end
if call('HEXISTS', B, 'purging') == 1 then return 'same' end
for i = 2, #ARGV, 2 do
  if (call('HGET', B, ARGV[i]) or '') ~= ARGV[i + 1] then return 'moved' end
end
if now < tonumber(ARGV[1]) then return 'early' end
call('HSET', B, 'purging', int(now))
return 'done'
