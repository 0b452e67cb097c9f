-- A worker begins its journal.  KEYS[1] journal.  ARGV: token.  Replies 1, or 0 when a journal of that id stands.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 't', ARGV[1], 'b', 0)
return 1
