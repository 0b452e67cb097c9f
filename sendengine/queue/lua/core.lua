-- Shared by the scripts of an account's slot; lib.lua begins each call. Times are µs of Redis' clock.
-- masks, states and settling stand apart because each call of a script makes its functions anew, at half a µs each (but for those that are kept
-- as functions of the server: scripts.py).
local A, B        -- the lane that is called about, and what belongs to its account (lib.lua)
local charged     -- 1/1000 credit that this call has spent (charging.lua)
local begun       -- 1 when a campaign of the line started in this call
local call, sub, byte, pack, unpack_ = redis.call, string.sub, string.byte, struct.pack, struct.unpack
local TRANSACTIONAL = 'transactional'
local reserve, pay, refund, refund_rest     -- reserving and charging.lua make them, where rows cost something
local conclude           -- sealing.lua makes it, where a list ends

local function clock() local t = call('TIME') return t[1] * 1e6 + t[2] end
local function int(x) return string.format('%.0f', x) end
local function num(x) return tonumber(x or 0) or 0 end
local function send_key(id) return A .. ':c:' .. id end
local function is_attached() return call('EXISTS', A .. ':lease') end

