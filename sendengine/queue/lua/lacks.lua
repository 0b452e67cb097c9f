-- include: lib
-- What the rest of a list costs that was refused for want of credit, as its caller has read it to its end.
-- KEYS[1] lane.  ARGV: campaign, 1/1000 credit.   Replies 1, or 0 where it lacks nothing (any more). reserving.lua begins and ends that.
local key = send_key(ARGV[1])
if call('HEXISTS', key, 'lacks') == 0 then return 0 end
call('HSET', key, 'lacks', ARGV[2])
return 1
