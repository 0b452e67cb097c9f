-- Who gets nothing any more (docs/design/017).  B:sup address -> weight of the reason (1 octet, the greater the graver), since (s, 4).
-- `sup` of B counts the addresses that came in or got a graver reason, and is there from the first bounce on that counts; B:late names the
-- last of them, the newest last, so that who knows an older number can ask whom to look at.
local LATE = 500
-- list: address, entry, address, entry ... no address twice. How many are new, and how many changed.
local function suppress(list)
  local names, changed, late, new = {}, {}, {}, 0
  for i = 1, #list, 2 do names[#names + 1] = list[i] end
  local stands = call('HMGET', B .. ':sup', unpack(names))
  for i, address in ipairs(names) do
    local entry, before = list[2 * i], stands[i]
    if not before or byte(entry) > byte(before) then
      changed[#changed + 1] = address
      changed[#changed + 1] = entry
      late[#late + 1] = address
      if not before then new = new + 1 end
    end
  end
  if #late == 0 then return 0, 0 end
  call('HSET', B .. ':sup', unpack(changed))
  call('HINCRBY', B, 'sup', #late)
  call('RPUSH', B .. ':late', unpack(late, math.max(1, #late - LATE + 1)))
  call('LTRIM', B .. ':late', -LATE, -1)
  return new, #late
end
