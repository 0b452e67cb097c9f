-- Shared: a change made in parts, a call each, is one line of the audit trail, with counts among its facts (docs/design/017).
-- B:runs holds of each run the µs of its last change and its line so far: until its last part, or until anything else is noted (noting.lua).
-- counts: what this part changed, by name. "" for the line: nothing is to be told.
local function tally(line, run, is_last, counts)
  if line == '' then return end
  local key, said, at = B .. ':runs', cjson.decode(line), nil
  local before = call('HGET', key, run)
  local counted = before and cjson.decode(string.match(before, ' (.*)')).facts or {}
  said.facts = said.facts or {}
  for name, n in pairs(counts) do
    if n > 0 then at = int(clock()) end
    local sum = n + num(counted[name])
    if sum > 0 then said.facts[name] = int(sum) end
  end
  at = at or before and string.match(before, '^%d+')
  if not at then return end
  call('HSET', key, run, at .. ' ' .. cjson.encode(said))
  if is_last then fold() end
end
