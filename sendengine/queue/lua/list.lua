-- include: lib unended
-- A run has begun to load a list; it has come to its end; or it leaves, having stored nothing.  KEYS[1] lane.
-- ARGV: campaign, begin, end or leave, run (16 digits), the batch where its list begins, of end also the batches up to its end.
-- Which marks an end takes away: docs/design/022.   Replies 1 where a mark was set or taken away, or 0.
local key, verb, run, first = send_key(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local s = call('HMGET', key, 'batches', 'sealed', 'unended')
if not s[1] or s[2] == '1' then return 0 end
local before, stands, kept = marks_in(s[3]), num(s[1]), {}
if verb == 'begin' then
  kept[1] = marked(before, run, first, s[1], 0)
else
  local is_all = tonumber(ARGV[5]) == stands                -- else another upload went on, and its end is to come
  local is_earlier = string.find(before, run .. ':', 1, true)
  for name, begins, stood, stored in string.gmatch(before, '(%x+):(%d+):(%d+):(%d) ') do
    if name == run then is_earlier = nil end
    local is_over
    if verb == 'leave' then is_over = name == run and stored == '0'
    elseif begins == first then is_over = is_all or stored == '0'
    else is_over = is_all and is_earlier and tonumber(stood) < stands end
    if not is_over then kept[#kept + 1] = table.concat({name, begins, stood, stored}, ':') .. ' ' end
  end
end
local after = table.concat(kept)
if after == before then return 0 end
if after == '' then call('HDEL', key, 'unended') else call('HSET', key, 'unended', after) end
return 1
