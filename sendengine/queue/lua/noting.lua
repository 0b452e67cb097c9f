-- Shared: a line for the audit trail (JSON, "" none), noted in the script that makes the change it tells of; queue/trail.py takes it from there.
local function note(now, line)
  if line ~= '' then call('HSET', B .. ':audit', call('HINCRBY', B, 'audits', 1), int(now) .. ' ' .. line) end
end
