-- include: turns
-- The states of campaigns: who may send, whose turn it is, when it ends (docs/queue-states.md). Beside it stand resting, cutting and needing.
-- The run set: who may send now. Served counts start anew whenever one joins, so shares are equal from then on.
local function sync_run(id)
  if id == TRANSACTIONAL then return end
  local s = call('HMGET', send_key(id), 'state', 'sealed', 'need_seal', 'open', 'reversed')
  local may = s[1] == 'sending' and (s[2] == '1' or s[3] ~= '1' and s[5] ~= '1') and s[4] ~= '0'
  local is = call('ZSCORE', A .. ':run', id)
  if may and not is then
    for _, other in ipairs(call('ZRANGEBYSCORE', A .. ':run', '(0', '+inf')) do
      call('ZADD', A .. ':run', 0, other)
      call('ZADD', A .. ':ready', 'XX', 0, other)
    end
    call('ZADD', A .. ':run', 0, id)
    call('HSET', send_key(id), 'runs_since', int(clock()))
  elseif is and not may then call('ZREM', A .. ':run', id) end
  note_work(id)
end

-- The line: when no sequential campaign sends, the first sealed one that waits its turn starts, and stands at the head from then on: one
-- that was paused, and resumed, is first behind it.
local function advance()
  local first
  for _, id in ipairs(call('LRANGE', A .. ':line', 0, -1)) do
    local s = call('HMGET', send_key(id), 'state', 'sealed')
    if s[1] == 'sending' then return end
    if not first and s[1] == 'sequential' and s[2] == '1' then first = id end
  end
  if not first then return end
  call('HSET', send_key(first), 'state', 'sending')
  call('LREM', A .. ':line', 0, first)
  call('LPUSH', A .. ':line', first)
  sync_run(first)
  begun = 1
end
local function leave_line(id) if call('LREM', A .. ':line', 0, id) > 0 then advance() end end
-- Where it should stand, whatever happened: in the line while it is sequential and not through, and nowhere twice.
local function mend_line(id)
  local s = call('HMGET', send_key(id), 'sequential', 'through', 'state')
  if s[1] == '1' and not s[2] and s[3] ~= 'finished' and s[3] ~= 'cancelled' then
    if not call('LPOS', A .. ':line', id) then call('RPUSH', A .. ':line', id) end
  else call('LREM', A .. ':line', 0, id) end
  advance()
end

-- Its time has come: a scheduled campaign takes its place; one of the line that is through has left that, and only its retries are to come.
local function start(id)
  local key = send_key(id)
  call('ZREM', A .. ':at', id)
  local s = call('HMGET', key, 'sequential', 'through')
  if s[1] == '1' and not s[2] then call('HSET', key, 'state', 'sequential') advance()
  else call('HSET', key, 'state', 'sending') sync_run(id) end
end

-- The end of a campaign, when its last recipient has an outcome: counts stay, outcomes and payloads for `retention` seconds.
-- It is through when nobody is left who was never tried; a cancelled one is finished when its last lease has ended.
local function finish_if_done(id)
  local key = send_key(id)
  local s = call('HMGET', key, 'state', 'sealed', 'accepted', 'tried', 'through', 'first_mail_last', 'last_mail', 'finished',
    'retention', 'sent', 'bounced', 'expired', 'suppressed', 'cancelled', 'unknown')
  if s[8] then return end
  local done, accepted, is_cancelled = 0, num(s[3]), s[1] == 'cancelled'
  for i = 10, 15 do done = done + num(s[i]) end
  local is_done = (s[2] == '1' or is_cancelled) and done >= accepted
  if s[2] == '1' and not is_cancelled and not s[5] and (is_done or num(s[4]) >= accepted) then
    call('HSET', key, 'through', s[6] or int(clock()))
    leave_line(id)
  end
  if not is_done then return end
  local now = int(clock())
  call('HSET', key, 'finished', not is_cancelled and s[7] or now, 'over', now, 'state', is_cancelled and 'cancelled' or 'finished')
  sync_run(id)
  leave_line(id)
  call('ZREM', A .. ':at', id)
  call('SREM', A .. ':open', id)
  if s[9] then for _, part in ipairs({':m', ':p', ':o', ':d', ':k', ':$', ':s'}) do call('EXPIRE', key .. part, s[9]) end end
end
