-- An event from billing comes to an account: whether it is its turn, and what it writes beside the fields that gate.lua, which follows, changes.
-- KEYS[1] B.  ARGV: cut delay µs; a line for the audit trail; sequence, id and digest of the event; the event itself; "1" where the speed changes;
--       µs from which on it is another decision ("" never); an order ("" none), what is kept of it ("" nothing); number of lots of credits, and of
--       each thousandths, µs of the purchase, µs until when it is good (0: lots.lua), who, why; number of fields that must be as the
--       caller saw them, these as field, value pairs; then field, value pairs to be. "" is absent.
-- Sequences are 1, 2, 3 … in an account. One that is ahead waits in B:early, so that the order in which they come makes no difference.
-- Replies, with the last sequence that came to its turn: known (a repeat), altered (its id came with other words),
-- taken (its sequence came with another id), occupied (another event waits with its sequence), early (it waits), far (too far ahead to wait), moved (read again), full (too many orders wait), missing, purging; else what gate.lua replies.
local REMEMBERED, AHEAD, LOT = 1000, 1000, 5
local now, sequence = clock(), tonumber(ARGV[3])
if call('EXISTS', B) == 0 then return {'missing', 0} end
if call('HEXISTS', B, 'purging') == 1 then return {'purging', 0} end
local seq, came, early, sms = num(call('HGET', B, 'seq')), B .. ':events', B .. ':early', B .. '/sms'
local known = call('HGET', came, 'i:' .. ARGV[4])
if known then return {known == ARGV[3] .. ' ' .. ARGV[5] and 'known' or 'altered', seq} end
if sequence <= seq then return {call('HEXISTS', came, 's:' .. ARGV[3]) == 1 and 'taken' or 'known', seq} end
if sequence > seq + AHEAD then return {'far', seq} end
if sequence > seq + 1 then
  call('HSETNX', early, ARGV[3], int(now) .. ' ' .. ARGV[6])
  return {string.gsub(call('HGET', early, ARGV[3]), '^%d+ ', '') == ARGV[6] and 'early' or 'occupied', seq}
end
local fields = 12 + LOT * tonumber(ARGV[11])
local n = tonumber(ARGV[fields])
for i = fields + 1, fields + 2 * n, 2 do
  if (call('HGET', B, ARGV[i]) or '') ~= ARGV[i + 1] then return {'moved', seq} end
end
if ARGV[8] ~= '' and now >= tonumber(ARGV[8]) then return {'moved', seq} end
if ARGV[10] ~= '' and is_full(B .. ':orders', ARGV[9]) then return {'full', seq} end
if ARGV[7] == '1' then cut(now, tonumber(ARGV[1])) end
call('HSET', came, 'i:' .. ARGV[4], ARGV[3] .. ' ' .. ARGV[5], 's:' .. ARGV[3], ARGV[4])
local old = 's:' .. int(sequence - REMEMBERED)
call('HDEL', came, old, 'i:' .. (call('HGET', came, old) or ''))
call('HDEL', early, ARGV[3])
if ARGV[9] ~= '' then keep_order(B .. ':orders', ARGV[9], ARGV[3], ARGV[10]) end
for i = 12, fields - 1, LOT do buy(sms, unpack(ARGV, i, i + LOT - 1)) end
local rest = {ARGV[1], '', ARGV[2], '0', 'seq', ARGV[3], 'stuck', ''}
for i = fields + 2 * n + 1, #ARGV do rest[#rest + 1] = ARGV[i] end
local ARGV = rest
