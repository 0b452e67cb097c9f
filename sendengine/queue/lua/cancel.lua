-- include: lib masks states settling cutting noting
-- Cancel a campaign: all that is not on its way ends as cancelled (unknown where in doubt), whatever their number, at once.
-- KEYS[1] account.  ARGV: campaign, cut delay µs, a line for the audit trail.
-- Replies {'done', cut number, cut µs}, {'same'}, {'closed', state}.
local id, key, now = ARGV[1], send_key(ARGV[1]), clock()
local s = call('HMGET', key, 'state', 'accepted', 'leased', 'sent', 'bounced', 'expired', 'suppressed', 'cancelled', 'unknown', 'doubts')
if s[1] == 'cancelled' then return {'same'} end
if not s[1] or s[1] == 'finished' or id == TRANSACTIONAL then return {'closed', s[1] or 'missing'} end
call('ZREM', A .. ':at', id)                      -- a first write that may not grow: cancelling frees memory, so it goes on at full memory
local rest, tally = num(s[2]), {}
for i = 3, 9 do rest = rest - num(s[i]) end
if s[10] then                                     -- rows READY or RETRY that were in doubt: few, and named
  for _, place in ipairs({':b', ':z'}) do
    for _, v in ipairs(call('LRANGE', key .. place, 0, -1)) do
      local k, _ = unpack_('<I4', v)
      local mask = sub(v, 6, 18)
      local n = count(mask)
      drop(key, k, mask, n, tally)
      rest = rest - n
    end
  end
  for _, k in ipairs(call('HKEYS', key .. ':r')) do
    local entries, rows = call('HGET', key .. ':r', k), {}
    for i = 1, #entries, 14 do rows[#rows + 1] = byte(entries, i) end
    drop(key, tonumber(k), mask_of(rows), #rows, tally)
    rest = rest - #rows
  end
end
tally.cancelled = num(tally.cancelled) + rest
for field, n in pairs(tally) do if n > 0 then call('HINCRBY', key, field, n) end end
call('HSET', key, 'state', 'cancelled', 'deferred', 0, 'cancelled_at', int(now))
call('HDEL', key, 'quarantined')
if refund_rest then refund_rest(id) end
for _, part in ipairs({':b', ':z', ':k', ':r', ':w', ':f0', ':f1', ':f2'}) do call('UNLINK', key .. part) end
for level = 0, 9 do call('UNLINK', key .. ':q' .. level) end
sync_run(id)
leave_line(id)
finish_if_done(id)
note(now, ARGV[3])
local number, at = cut(now, tonumber(ARGV[2]))
return {'done', number, int(at)}
