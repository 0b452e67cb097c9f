-- include: lib
-- Who came onto an account's list since there were ARGV[1] changes.  KEYS[1] account.
-- Replies {changes, 1, addresses ...}; {changes, 0} where they are too many to name, or the list went back (a failover).
local changes = num(call('HGET', B, 'sup'))
local n = changes - tonumber(ARGV[1])
if n < 0 or n > call('LLEN', B .. ':late') then return {changes, 0} end
if n == 0 then return {changes, 1} end
return {changes, 1, unpack(call('LRANGE', B .. ':late', -n, -1))}
