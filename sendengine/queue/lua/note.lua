-- include: lib noting
-- Note a line for the audit trail beside a change that was made without one.  KEYS[1] B.  ARGV: the line (JSON).
-- Replies 1, or 0 when there is no such account, or its purge has begun: then the trail itself takes it (audit.lua).
if call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1 then return 0 end
note(clock(), ARGV[1])
return 1
