-- Shared: lines for the audit trail (JSON, "" none), noted in the script that makes the change they tell of; queue/trail.py takes them from there.
local function put(line) call('HSET', B .. ':audit', call('HINCRBY', B, 'audits', 1), line) end
-- What runs have counted so far (counting.lua), the earliest first.
local function fold()
  local counted = call('HVALS', B .. ':runs')
  if #counted == 0 then return end
  table.sort(counted)
  for _, line in ipairs(counted) do put(line) end
  call('UNLINK', B .. ':runs')
end
-- What was counted before goes before it: the times of the trail go up with its numbers.
local function note(now, line)
  if line == '' then return end
  fold()
  put(int(now) .. ' ' .. line)
end
