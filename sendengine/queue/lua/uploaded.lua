-- include: lib
-- An upload has come to its end: where nothing stands behind it, the list is no more `unended` (submit.lua). Else another upload went on,
-- and its end is to come.  KEYS[1] lane.  ARGV: campaign, batches up to its end.  Replies 1, or 0.
local key = send_key(ARGV[1])
if num(call('HGET', key, 'batches')) ~= tonumber(ARGV[2]) then return 0 end
return call('HDEL', key, 'unended')
