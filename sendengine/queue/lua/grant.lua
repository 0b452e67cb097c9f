-- include: lib channels lots noting
-- A lot of credits is bought.  KEYS[1] the SMS lane.
-- ARGV: id of the purchase, thousandths of a credit, µs of the purchase, µs until when it is good if the account is SMS-only now, who, why,
-- a line for the audit trail.
-- With e-mail it is good until that term ends, whenever that is: 0 stands for it.  The same id again changes nothing.
-- Replies the lot's number, or nil: there is no such account, or its purge has begun.
if call('EXISTS', B) == 0 or call('HEXISTS', B, 'purging') == 1 then return false end
local known = call('HGET', A .. ':lots', '#' .. ARGV[1])
if known then return tonumber(known) end
local fixed = holds_mail(call('HGET', B, 'channels')) and '0' or ARGV[4]
local number = buy(A, ARGV[2], ARGV[3], fixed, ARGV[5], ARGV[6])
call('HSET', A .. ':lots', '#' .. ARGV[1], number)
note(clock(), ARGV[7])
return number
