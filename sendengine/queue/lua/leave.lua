-- include: lib cutting
-- A worker will not use permits that it was granted: cut, so that whoever asks next gets the time that is left.  KEYS[1] account.
-- ARGV: cut delay µs, a number that the cut's is to be above.
-- Replies {cut number, cut µs}, or {} when there is no such account.
if call('EXISTS', A) == 0 then return {} end
local number, at = cut(clock(), tonumber(ARGV[1]), tonumber(ARGV[2]))
return {number, int(at)}
