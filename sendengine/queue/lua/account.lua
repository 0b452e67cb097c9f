-- include: lib
-- Make an account or change its settings.  KEYS[1] account.  ARGV: "new"/"set", then field, value pairs (never iv, last or cut).
-- Replies 1 done, 0 it exists already (new) or does not exist (set).
local exists = call('EXISTS', A)
if (ARGV[1] == 'new') == (exists == 1) then return 0 end
for i = 2, #ARGV, 2 do call('HSET', A, ARGV[i], ARGV[i + 1]) end
if exists == 0 then call('HSET', A, 'created', int(clock()), 'last', '0', 'cut', '0') end
return 1
