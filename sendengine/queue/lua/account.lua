-- include: lib cutting
-- Make an account or change its settings.  KEYS[1] account.  ARGV: "new"/"set", cut delay µs, then field, value pairs (never iv, last or cut).
-- Another lane than e-mail's is made only beside an account that stands, and whose purge has not begun.
-- A change cuts, so that workers ask anew and read it.
-- Replies {1} done, {1, cut number, cut µs} changed, {0} it exists already (new) or does not exist (set).
local exists = call('EXISTS', A)
if (ARGV[1] == 'new') == (exists == 1) then return {0} end
if exists == 0 and A ~= B and (call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1) then return {0} end
local reply = {1}
if exists == 1 then
  local number, at = cut(clock(), tonumber(ARGV[2]))
  reply = {1, number, int(at)}
end
for i = 3, #ARGV, 2 do call('HSET', A, ARGV[i], ARGV[i + 1]) end
if exists == 0 then call('HSET', A, 'created', int(clock()), 'last', '0', 'cut', '0') end
return reply
