-- Shared: the gate of the account (docs/design/016). B's field `gate`: 0 under a hold, else the µs at which its term ends; absent: neither.
-- Since when it is shut, µs; nil while it is open. `closed_at` stands when a script saw it shut, else the term ended unseen.
local function shut_since(now)
  local s = call('HMGET', B, 'gate', 'closed_at')
  if s[1] and now >= tonumber(s[1]) then return num(s[2] or s[1]) end
end
-- µs of this lane that count against no lifetime, up to now: what was counted, and since when something forbids all sending: the gate, or a
-- relay that refuses us. Both at once count once; `idle_at` is up to when they are counted.
local function idle_until(now)
  local s = call('HMGET', A, 'idle', 'bind', 'idle_at')
  local limit, since = string.match(s[2] or '', '^([%a_]*)|(%d*)')
  local from = shut_since(now)
  if (limit == 'relay' or limit == 'site') and (not from or num(since) < from) then from = num(since) end
  return num(s[1]) + (from and math.max(0, now - math.max(from, num(s[3]))) or 0)
end
