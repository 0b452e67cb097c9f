-- include: lib
-- Shared: `unended` of a campaign has a mark for each run (a call that loads a list) which was begun and has not ended, in the order in which
-- they were begun: "run:first:stood:stored " (its name, 16 digits; the batch where its list begins; the batches that stood when it was begun;
-- 1 once it has stored one). The release before kept "1". Of so many the oldest go: whatever ends a later one ends them, too.
local MOST = 4096         -- octets
local function marks_in(value) return value == '1' and '1:0:0:1 ' or value or '' end
-- The marks with that of a run, and whether it has stored one just now for the first time.
local function marked(marks, run, first, stood, stored)
  local _, to, was = string.find(marks, run .. ':%d+:%d+:(%d) ')
  if not was then
    if #marks > MOST then marks = sub(marks, string.find(marks, ' ') + 1) end
    return marks .. table.concat({run, first, stood, stored}, ':') .. ' ', stored == 1
  end
  if was == '1' or stored == 0 then return marks, false end
  return sub(marks, 1, to - 2) .. '1' .. sub(marks, to), true
end
