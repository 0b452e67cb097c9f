-- include: lib
-- One step of a purge.  KEYS[1] a lane.  ARGV: nothing: what lets its rows be taken and settled goes first; else a campaign: its hash goes
-- first, so that nobody adds to it, then what it holds, then its name. Replies 1, or 0 when no purge of the account has begun.
if call('HEXISTS', B, 'purging') == 0 then return 0 end
if not ARGV[1] then
  call('UNLINK', A .. ':lease', A .. ':run', A .. ':ready', A .. ':again', A .. ':line', A .. ':at', A .. ':open')
  return 1
end
local key = send_key(ARGV[1])
call('UNLINK', key)
for _, part in ipairs({'m', 'p', 'b', 'k', 'z', 'r', 'w', 'd', 'o', 'x', 'i', 's', '$', 'f0', 'f1', 'f2'}) do call('UNLINK', key .. ':' .. part) end
for level = 0, 9 do call('UNLINK', key .. ':q' .. level) end
call('ZREM', A .. ':sends', ARGV[1])
return 1
