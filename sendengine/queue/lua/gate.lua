-- include: lib cutting gating noting held
-- Change an account's term or holds: the one way to (docs/design/016).  KEYS[1] B, the account's own hash.
-- ARGV: cut delay µs; µs from which on it is too late ("" never); a line for the audit trail ("" none); number of fields that must be as the
--       caller saw them, these as field, value pairs; then field, value pairs to be. "" is absent.
-- Where that shuts the gate, opens it or moves the end of the term, each lane's clock is cut: what was granted ends, and nothing has saved up.
-- When it opens, the time since it shut goes to `idle` of each lane. Holds that come and go are noted for the webhooks out.
-- Replies {'done', µs now, then per lane that was cut: its name behind the account's, cut number, cut µs}, {'same', µs now}, {'missing'},
--         {'purging'} (its purge has begun), {'late'}, {'moved'} (another was faster: read again).
local LANES = {'', '/sms'}
local now, n = clock(), tonumber(ARGV[4])
if call('EXISTS', B) == 0 then return {'missing'} end
if call('HEXISTS', B, 'purging') == 1 then return {'purging'} end
for i = 5, 3 + 2 * n, 2 do
  if (call('HGET', B, ARGV[i]) or '') ~= ARGV[i + 1] then return {'moved'} end
end
if ARGV[2] ~= '' and now >= tonumber(ARGV[2]) then return {'late'} end
local is_same = true
for i = 5 + 2 * n, #ARGV, 2 do is_same = is_same and (call('HGET', B, ARGV[i]) or '') == ARGV[i + 1] end
if is_same then return {'same', int(now)} end
local since, before, moves = shut_since(now), call('HGET', B, 'gate'), ''
for i = 5 + 2 * n, #ARGV, 2 do
  local is_lifted = ARGV[i + 1] == ''
  if sub(ARGV[i], 1, 5) == 'hold:' and (call('HEXISTS', B, ARGV[i]) == 1) == is_lifted then
    moves = moves .. (is_lifted and ' -' or ' +') .. sub(ARGV[i], 6)
  end
  if ARGV[i + 1] == '' then call('HDEL', B, ARGV[i]) else call('HSET', B, ARGV[i], ARGV[i + 1]) end
end
local gate = call('HGET', B, 'term_ends')
for _, field in ipairs(call('HKEYS', B)) do
  if sub(field, 1, 5) == 'hold:' then gate = '0' end
end
local is_shut, reply = gate and now >= tonumber(gate), {'done', int(now)}
local function lanes(work)
  for _, lane in ipairs(LANES) do
    A = B .. lane
    if call('EXISTS', A) == 1 then work(lane) end
  end
end
if since and not is_shut then lanes(function() call('HSET', A, 'idle', int(idle_until(now)), 'idle_at', int(now)) end) end
if gate then call('HSET', B, 'gate', gate) else call('HDEL', B, 'gate') end
if is_shut then call('HSET', B, 'closed_at', int(since or now)) else call('HDEL', B, 'closed_at') end
if gate ~= before then
  lanes(function(lane)
    local number, at = cut(now, tonumber(ARGV[1]))
    for _, value in ipairs({lane, number, int(at)}) do reply[#reply + 1] = value end
  end)
end
note(now, ARGV[3])
note_held(now, moves)
return reply
