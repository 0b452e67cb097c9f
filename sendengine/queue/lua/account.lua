-- include: lib cutting noting
-- Make an account or change its settings.  KEYS[1] account.  ARGV: "new"/"set", cut delay µs, a line for the audit trail, number of fields
-- that must be as the caller saw them, these as field, value pairs ("" is absent), then field, value pairs to be (never iv, last or cut).
-- Another lane than e-mail's is made only beside an account that stands, and whose purge has not begun.
-- A change cuts, so that workers ask anew and read it. Settings that stand so already are no line in the trail.
-- Replies {1} done, {1, cut number, cut µs} changed, {0} it exists already (new), does not exist or is not as it was seen (set).
local exists = call('EXISTS', A)
if (ARGV[1] == 'new') == (exists == 1) then return {0} end
if exists == 0 and A ~= B and (call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1) then return {0} end
local first = 5 + 2 * tonumber(ARGV[4])
for i = 5, first - 1, 2 do
  if (call('HGET', A, ARGV[i]) or '') ~= ARGV[i + 1] then return {0} end
end
local reply, now, is_same = {1}, clock(), exists == 1
if exists == 1 then
  local number, at = cut(now, tonumber(ARGV[2]))
  reply = {1, number, int(at)}
end
for i = first, #ARGV, 2 do
  is_same = is_same and (call('HGET', A, ARGV[i]) or '') == ARGV[i + 1]
  call('HSET', A, ARGV[i], ARGV[i + 1])
end
if exists == 0 then call('HSET', A, 'created', int(now), 'last', '0', 'cut', '0') end
if not is_same then note(now, ARGV[3]) end
return reply
