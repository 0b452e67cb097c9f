-- Shared by the scripts that settle leases (visit). Rules: design 3.2; a settlement acts only on rows LEASED under its token.
-- outcome record, 14: row, outcome + 8 if this was its first try, tries, reply(2), MAIL at ms mod 2^32 (4), paced, transmit, connect
-- deferred record, 15: row, 8 if first try, tries, first MAIL s (4), delay ms (4), MAIL at ms (4).   doubt record, 18: outcome record, first MAIL s (4)
local OUTCOMES = {'sent', 'bounced', 'expired', 'suppressed', 'cancelled', 'unknown'}
local KILLS_MOST = 3     -- workers that a batch may end, one after the other without progress, before it is set aside (docs/design/010)
local function give_back(key, k, level, mask, past, tally)
  if mask == NONE then return end
  local place = ':b'
  if tally.is_aside then place = ':z' tally.quarantined = num(tally.quarantined) + count(mask) end
  call('RPUSH', key .. place, pack('<I4B', k, level) .. mask .. histories(past, mask))
end
-- Counts a kill against the batch, or makes it a suspect, and begins anew where something of it moved on. True when it is set aside now.
local function charge(key, k, blame, had_kills, tally)
  local moved = tally.sent or tally.bounced or tally.expired or tally.suppressed or tally.deferred
  if had_kills and moved then call('HDEL', key .. ':k', k) end
  if blame == '' then return false end
  call('HSET', key, 'killed', 1)
  if blame == 'suspect' then call('HSETNX', key .. ':k', k, 1) return false end
  return call('HINCRBY', key .. ':k', k, 1) >= KILLS_MOST
end
local function write_outcomes(key, k, records, dictionary, worker)
  call('XADD', key .. ':o', '*', 'k', k, 'r', records, 'd', dictionary, 'w', worker)
  if pay then pay(key, k, records) end
end
-- Rows of a cancelled campaign that will not be sent: cancelled, or unknown where one was ever in doubt.
local function drop(key, k, mask, n, tally)
  local in_doubt, is_recorded = {}, {}
  if call('EXISTS', key .. ':d') == 1 then
    for p = 0, 103 do
      if has(mask, p) and call('HEXISTS', key .. ':d', k .. ':' .. p) == 1 then
        is_recorded[p] = true
        in_doubt[#in_doubt + 1] = pack('<BBBI2I4', p, 6, 1, 65535, 0) .. '\0\0\0\0\0'
      end
    end
    if #in_doubt > 0 then write_outcomes(key, k, table.concat(in_doubt), '{}', '') end
  end
  tally.unknown = num(tally.unknown) + #in_doubt
  tally.cancelled = num(tally.cancelled) + n - #in_doubt
  if refund then refund(key, k, mask, is_recorded) end
end
-- What of these records may act: rows still leased; a row once in doubt never ends as expired, suppressed or cancelled.
local function admit(records, mask, key, k, doubted, tally)
  local kept, rows = {}, {}
  for i = 1, #records, 14 do
    local row, what = byte(records, i), byte(records, i + 1)
    if has(mask, row) then
      local outcome, rest = what % 8, sub(records, i + 2, i + 13)
      if outcome >= 3 and doubted and call('HEXISTS', key .. ':d', k .. ':' .. row) == 1 then outcome = 6 end
      kept[#kept + 1] = string.char(row, outcome + what - what % 8) .. rest
      rows[#rows + 1] = row
      tally[OUTCOMES[outcome]] = num(tally[OUTCOMES[outcome]]) + 1
      if what >= 8 then tally.tried = num(tally.tried) + 1 end
    end
  end
  return table.concat(kept), mask_of(rows)
end
local function defer(key, k, records, mask, cancelled, now, tally)
  local rows, entries, earliest = {}, {}, nil
  for i = 1, #records, 15 do
    local row, flags, tries, first, delay = unpack_('<BBBI4I4', records, i)
    if has(mask, row) then
      rows[#rows + 1] = row
      if flags >= 8 then tally.tried = num(tally.tried) + 1 end
      local due = now + delay * 1000
      if not earliest or due < earliest then earliest = due end
      entries[#entries + 1] = pack('<BBI4d', row, tries, first, due)
    end
  end
  local gone = mask_of(rows)
  if cancelled then drop(key, k, gone, #rows, tally)
  elseif #rows > 0 then
    call('HSET', key .. ':r', k, (call('HGET', key .. ':r', k) or '') .. table.concat(entries))
    call('ZADD', key .. ':w', 'LT', int(earliest), k)
    tally.deferred = #rows
  end
  return gone, #rows
end
-- A rescuer knows neither tries nor first MAIL (0) of a row whose intent alone stands: the lease's histories do.
local function doubt(now, key, k, level, records, mask, past, s, dictionary, worker, tally)
  local rows, again, unknown, known = {}, {}, {}, {}
  for i = 1, #past, 6 do known[byte(past, i)] = {unpack_('<BI4', past, i + 1)} end
  past = {}
  for i = 1, #records, 18 do
    local row, flags, tries = byte(records, i, i + 2)
    if has(mask, row) then
      local history, first = known[row], unpack_('<I4', records, i + 14)
      rows[#rows + 1] = row
      if flags >= 8 and not history then tally.tried = num(tally.tried) + 1 end
      if first == 0 then
        if history then tries, first = math.min(255, history[1] + 1), history[2]
        else first = math.floor((now - num(call('HGET', A, 'idle')) - num(call('HGET', key, 'idle'))) / 1e6) end
      end
      local times = call('HINCRBY', key .. ':d', k .. ':' .. row, 1)
      if s[2] == 'hold' or s[1] == 'cancelled' or times > num(s[3] or 1) then unknown[#unknown + 1] = sub(records, i, i + 13)
      else
        again[#again + 1] = row
        past[#past + 1] = pack('<BBI4', row, tries, first)
      end
    end
  end
  if #unknown > 0 then write_outcomes(key, k, table.concat(unknown), dictionary, worker) end
  tally.unknown = num(tally.unknown) + #unknown
  give_back(key, k, level, mask_of(again), table.concat(past), tally)
  return mask_of(rows), #rows
end
-- The last messages' times and their number so far, 12 of them, 1 s apart but for the last: what the achieved rate is read from.
local function sample(old, mails, last)
  if mails == 0 then return end
  old = old or ''
  local total, at = mails, 0
  if #old > 0 then at, total = unpack_('<dd', old, #old - 15) total = total + mails end
  if #old >= 32 and at - unpack_('<dd', old, #old - 31) < 1e6 then old = sub(old, 1, #old - 16) end
  return sub(old .. pack('<dd', math.max(last, at), total), -192)
end
-- What these outcomes say of their addresses, while their rows are leased: so a mark counts once, and the list has who bounced hard before
-- the outcome is told. marks: row, 1 good, 2 soft, 3 soft: full, 4 hard; soft ones in a row that are enough; octets of the address; the address.
-- B:soft holds soft and full ones in a row, an octet each.
local WEIGHT_SOFT, WEIGHT_HARD = 51, 52
local function note_marks(now, marks, mask)
  local at, bad, seen, counts = 1, {}, {}, 0
  while at <= #marks do
    local row, mark, enough, size = byte(marks, at, at + 3)
    local address = sub(marks, at + 4, at + 3 + size)
    at = at + 4 + size
    if has(mask, row) and not seen[address] then
      seen[address] = true
      local weight = mark == 4 and WEIGHT_HARD
      if mark == 2 or mark == 3 then
        local soft, full = byte(call('HGET', B .. ':soft', address) or '\0\0', 1, 2)
        if mark == 2 then soft = math.min(255, soft + 1) else full = math.min(255, full + 1) end
        call('HSET', B .. ':soft', address, string.char(soft, full))
        counts = counts + 1
        if enough > 0 and (mark == 2 and soft or full) >= enough then weight = WEIGHT_SOFT end
      end
      if weight then bad[#bad + 1] = address bad[#bad + 1] = string.char(weight) .. pack('<I4', now / 1e6) end
      if weight or mark == 1 then call('HDEL', B .. ':soft', address) end
    end
  end
  if counts > 0 then call('HSETNX', B, 'sup', 0) end
  if #bad > 0 then suppress(bad) end
end
-- nums: sent bounced expired suppressed cancelled unknown tried mails (2 each), first MAIL, last first try's MAIL, last MAIL (µs, 8 each)
local function settle(now, token, final, records, dictionary, nums, deferred, doubts, back, blame, marks)
  local v = call('HGET', A .. ':lease', token)
  if not v then return 0 end
  local mask, k, level, taken, id, worker, past = lease_unpack(v)
  local key = send_key(id)
  local s = call('HMGET', key, 'state', 'on_doubt', 'max_doubt', 'doubts', 'first_mail', 'first_mail_last', 'last_mail', 'recent', 'accepted', 'tried', 'leased', 'killed', 'sent')
  local cancelled, tally, left, n = s[1] == 'cancelled', {}, mask, 0
  local c = {unpack_('<I2I2I2I2I2I2I2I2ddd', nums)}
  if #marks > 0 then note_marks(now, marks, mask) end
  if #records > 0 then
    if s[4] or mask_and(final, mask) ~= final then records, final = admit(records, mask, key, k, s[4], tally)
    else
      for i = 1, 6 do if c[i] > 0 then tally[OUTCOMES[i]] = c[i] end end
      tally.tried = c[7]
    end
    if #records > 0 then
      write_outcomes(key, k, records, dictionary, worker)
      if id == TRANSACTIONAL then call('HDEL', key .. ':x', k) end
    end
    left, n = mask_minus(left, final), #records / 14
  end
  if #deferred > 0 then
    local gone, m = defer(key, k, deferred, left, cancelled, now, tally)
    left, n = mask_minus(left, gone), n + m
  end
  if s[12] or blame ~= '' then tally.is_aside = charge(key, k, blame, s[12], tally) end
  if #doubts > 0 then
    local gone, m = doubt(now, key, k, level, doubts, left, past, s, dictionary, worker, tally)
    left, n = mask_minus(left, gone), n + m
    if m > 0 then call('HSET', key, 'doubts', 1) end
  end
  if #back > 0 then
    back = mask_and(back, left)
    local m = count(back)
    if m > 0 and cancelled then drop(key, k, back, m, tally) else give_back(key, k, level, back, past, tally) end
    left, n = mask_minus(left, back), n + m
  end
  if #deferred + #doubts + #back > 0 then note_work(id) end
  local standing, tried = num(s[11]) - n, num(s[10]) + num(tally.tried)
  if n > 0 then
    local set = {'leased', standing}
    if num(tally.tried) > 0 then set[3] = 'tried' set[4] = tried end
    if tally.sent then set[#set + 1] = 'sent' set[#set + 1] = num(s[13]) + tally.sent end     -- nearly all: a call less for them
    tally.tried, tally.is_aside, tally.sent = nil, nil, nil
    for field, m in pairs(tally) do if m > 0 then call('HINCRBY', key, field, m) end end
    if c[11] > 0 then
      set[#set + 1] = 'last_mail' set[#set + 1] = int(math.max(num(s[7]), c[11]))
      if c[9] > 0 and (not s[5] or c[9] < num(s[5])) then set[#set + 1] = 'first_mail' set[#set + 1] = int(c[9]) end
      if c[10] > num(s[6]) then set[#set + 1] = 'first_mail_last' set[#set + 1] = int(c[10]) end
      local recent = sample(s[8], c[8], c[11])
      if recent then set[#set + 1] = 'recent' set[#set + 1] = recent end
    end
    call('HSET', key, unpack(set))
  end
  if left == NONE then
    call('HDEL', A .. ':lease', token)
    if standing <= 0 or tried >= num(s[9]) then finish_if_done(id) end   -- else it is neither through nor finished
  elseif left ~= mask then call('HSET', A .. ':lease', token, lease_pack(left, k, level, taken, id, worker, histories(past, left))) end
  return 1
end
