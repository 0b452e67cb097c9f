-- include: lib noting counting
-- Take addresses off an account's list, and forget their soft bounces.  KEYS[1] account.  ARGV: line for the audit trail, its run and "1"
-- where this is the last part of that (counting.lua), then addresses.
-- Replies how many stood there; 0 where there is no account, or its purge has begun: its line would come too late.
if call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1 then return 0 end
call('HDEL', B .. ':soft', unpack(ARGV, 4))
local removed = call('HDEL', B .. ':sup', unpack(ARGV, 4))
tally(ARGV[1], ARGV[2], ARGV[3] == '1', {removed = removed})
return removed
