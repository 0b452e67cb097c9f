-- Shared by the scripts of an account's slot. KEYS[1] is a lane of the account, A; every other key is formed from it. Times are µs of Redis'
-- clock. B is what belongs to the account, whatever the lane: the e-mail lane is B itself, {m1234}; another's name stands behind it.
-- masks, states and settling stand apart because each call of a script makes its functions anew, at half a µs each.
local A = KEYS[1]
local call, sub, byte, pack, unpack_ = redis.call, string.sub, string.byte, struct.pack, struct.unpack
local B = byte(A, -1) == 125 and A or string.match(A, '^[^}]*}')
local TRANSACTIONAL = 'transactional'
local reserve, pay, refund, refund_rest     -- reserving and charging.lua make them, where rows cost something
local charged = 0        -- 1/1000 credit that this call has spent (charging.lua)
local conclude           -- sealing.lua makes it, where a list ends
local begun = 0          -- 1 when a campaign of the line started in this call

local function clock() local t = call('TIME') return t[1] * 1e6 + t[2] end
local function int(x) return string.format('%.0f', x) end
local function num(x) return tonumber(x or 0) or 0 end
local function send_key(id) return A .. ':c:' .. id end
local function is_attached() return call('EXISTS', A .. ':lease') end

