-- Append lines to an account's audit trail, each once; forget those that are older than they are kept.  KEYS[1] the trail, a stream.
-- ARGV: ms of the oldest that is kept, then number, µs, line of each, by their numbers. They go up by one in an account's life; a line whose
-- number the trail has, or has passed, is a repeat. Number "" is the next one: of an account that is gone, and numbers no more.
-- An entry's id is <ms>-<number>.   Replies the last number.
local last, ms = 0, 0
local entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if entry then
  local at, number = string.match(entry[1], '^(%d+)-(%d+)$')
  ms, last = tonumber(at), tonumber(number)
end
for i = 2, #ARGV, 3 do
  local number = ARGV[i] == '' and last + 1 or tonumber(ARGV[i])
  if number > last then
    ms, last = math.max(ms, math.floor(tonumber(ARGV[i + 1]) / 1000)), number   -- a clock that stepped back changes no order
    redis.call('XADD', KEYS[1], string.format('%.0f-%.0f', ms, number), 'line', ARGV[i + 2])
  end
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
return last
