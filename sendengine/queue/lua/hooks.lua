-- include: lib noting
-- An account's webhooks out.  KEYS[1] the account, B.  ARGV: verb, then
--   "look", version seen, n, n × (field, value; "" removes it) of what was last looked at, then (delivery, due µs, value) …: what was found is
--     queued and what was looked at is noted, together, once: only where the version is as it was seen.  Replies 1, or 0. held.lua counts the version up, too.
--   "told", delivery, due µs, value: tried, and due again; "" "": over.  One that is gone stays gone.  Replies 1, or 0.
--   "keep", hook, value ("" removes it, with what is on its way to it when nobody is left), a line for the audit trail, noted where that
--     changes anything.  A look that began before it finds another version, or the hook would miss what is found.  Replies 1, or 0 where there
--     is no such account.
-- Of an account that is gone, or whose purge has begun, nothing is written: each verb replies 0.
if call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1 then return 0 end
if ARGV[1] == 'look' then
  if (call('HGET', B .. ':hooked', 'v') or '0') ~= ARGV[2] or call('HLEN', B .. ':hooks') == 0 then return 0 end
  local n = tonumber(ARGV[3])
  for i = 4, 3 + 2 * n, 2 do
    if ARGV[i + 1] == '' then call('HDEL', B .. ':hooked', ARGV[i]) else call('HSET', B .. ':hooked', ARGV[i], ARGV[i + 1]) end
  end
  call('HINCRBY', B .. ':hooked', 'v', 1)
  for i = 4 + 2 * n, #ARGV, 3 do
    call('ZADD', B .. ':due', ARGV[i + 1], ARGV[i])
    call('HSET', B .. ':out', ARGV[i], ARGV[i + 2])
  end
  return 1
end
if ARGV[1] == 'told' then
  if call('HEXISTS', B .. ':out', ARGV[2]) == 0 then return 0 end
  if ARGV[3] == '' then
    call('ZREM', B .. ':due', ARGV[2])
    call('HDEL', B .. ':out', ARGV[2])
  else
    call('ZADD', B .. ':due', ARGV[3], ARGV[2])
    call('HSET', B .. ':out', ARGV[2], ARGV[4])
  end
  return 1
end
if (call('HGET', B .. ':hooks', ARGV[2]) or '') ~= ARGV[3] then note(clock(), ARGV[4]) end
if ARGV[3] ~= '' then
  call('HSET', B .. ':hooks', ARGV[2], ARGV[3])
  if call('HEXISTS', B .. ':hooked', 'v') == 1 then call('HINCRBY', B .. ':hooked', 'v', 1) end
  return 1
end
call('HDEL', B .. ':hooks', ARGV[2])
if call('HLEN', B .. ':hooks') == 0 then call('UNLINK', B .. ':hooked', B .. ':due', B .. ':out') end
return 1
