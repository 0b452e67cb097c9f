-- include: lib noting
-- Move a waiting sequential campaign one place up or down the line.  KEYS[1] account.  ARGV: campaign, "up" or "down", a line for the
-- audit trail.
-- Replies {'done' | 'same' at its end of the line, place from 1} or {'closed', state}; one that sends keeps its place, nobody passes it.
local id, line = ARGV[1], call('LRANGE', A .. ':line', 0, -1)
local state = call('HGET', send_key(id), 'state')
if state == 'sending' or call('HGET', send_key(id), 'sequential') ~= '1' then return {'closed', state or 'missing'} end
for i, other in ipairs(line) do
  if other == id then
    local j = i + (ARGV[2] == 'up' and -1 or 1)
    if line[j] and call('HGET', send_key(line[j]), 'state') ~= 'sending' then
      call('LSET', A .. ':line', i - 1, line[j])
      call('LSET', A .. ':line', j - 1, id)
      note(clock(), ARGV[3])
      return {'done', j}
    end
    return {'same', i}
  end
end
return {'closed', state or 'missing'}
