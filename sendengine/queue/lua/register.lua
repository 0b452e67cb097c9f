-- A worker begins its journal.  KEYS[1] journal.  ARGV: token.  Replies 1 (a repeat under the same token too: its answer was lost),
-- or 0 when another's journal of that id stands.
local standing = redis.call('HGET', KEYS[1], 't')
if standing then return standing == ARGV[1] and 1 or 0 end
redis.call('HSET', KEYS[1], 't', ARGV[1], 'b', 0)
return 1
