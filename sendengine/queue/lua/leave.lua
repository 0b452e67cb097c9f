-- include: lib cutting
-- A worker leaves an account with permits unused: cut, so that others get the time that is left.  KEYS[1] account.  ARGV: cut delay µs.
-- Replies {cut number, cut µs}, or {} when there is no such account.
if call('EXISTS', A) == 0 then return {} end
local number, at = cut(clock(), tonumber(ARGV[1]))
return {number, int(at)}
