-- Masks and lease records. A mask is 13 octets, row p = bit p%8 of octet p/8 (0-based).
local NONE = string.rep('\0', 13)
local function mask_op(f, a, b)
  local a1, a2, a3, a4 = unpack_('<I4I4I4B', a)
  local b1, b2, b3, b4 = unpack_('<I4I4I4B', b)
  return pack('<I4I4I4B', f(a1, b1) % 2^32, f(a2, b2) % 2^32, f(a3, b3) % 2^32, f(a4, b4) % 256)
end
local function mask_and(a, b) return mask_op(bit.band, a, b) end
local function mask_minus(a, b) return mask_op(function(x, y) return bit.band(x, bit.bnot(y)) end, a, b) end
local function has(m, p) return bit.band(byte(m, bit.rshift(p, 3) + 1), bit.lshift(1, bit.band(p, 7))) ~= 0 end
local function mask_of(rows)
  local o = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  for _, p in ipairs(rows) do
    local i = bit.rshift(p, 3) + 1
    o[i] = bit.bor(o[i], bit.lshift(1, bit.band(p, 7)))
  end
  return string.char(unpack(o))
end
local function count(m)
  local n = 0
  for i = 1, 13 do
    local x = byte(m, i)
    while x > 0 do x = bit.band(x, x - 1) n = n + 1 end
  end
  return n
end

-- lease record: mask(13) batch(4) level(1) taken µs(8) | campaign | worker | histories of rows: pos tries first-MAIL-seconds (6 each)
local function lease_pack(mask, k, level, taken, id, worker, past)
  return mask .. pack('<I4Bd', k, level, taken) .. string.char(#id) .. id .. string.char(#worker) .. worker .. past
end
local function lease_unpack(v)
  local k, level, taken = unpack_('<I4Bd', v, 14)
  local n = byte(v, 27)
  local m = byte(v, 28 + n)
  return sub(v, 1, 13), k, level, taken, sub(v, 28, 27 + n), sub(v, 29 + n, 28 + n + m), sub(v, 29 + n + m)
end
local function histories(past, mask)      -- of the rows in mask only
  local kept = {}
  for i = 1, #past, 6 do
    if has(mask, byte(past, i)) then kept[#kept + 1] = sub(past, i, i + 5) end
  end
  return table.concat(kept)
end

