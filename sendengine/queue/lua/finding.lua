-- include: lib
-- Shared by submit and submit_paid: which rows of a batch the send has not had yet, exactly. It writes nothing.
-- Fingerprints stand packed, eight octets each, in buckets: generations of 2^16, 2^20 and 2^24 of them, the next one begun at 12 rows a
-- bucket. A list that is expected to be long begins with a later one, so that each row is looked for in one generation, among few.
-- All rows are cut by one call, and buckets are short: strings are where the time goes (docs/design/021).
local function generation(size) return size < 3 * 2^18 and 0 or size < 3 * 2^22 and 1 or 2 end
local function cut(format, n, octets)
  local parts = {unpack_(string.rep(format, n), octets)}
  parts[n + 1] = nil      -- where it stopped
  return parts
end
local function stands_in(bucket, print)
  local at = string.find(bucket, print, 1, true)
  while at and at % 8 ~= 1 do at = string.find(bucket, print, at + 1, true) end
  return at
end
-- The positions of those rows, then what is to be written: place, bucket pairs, and their key. `total` rows stand already.
-- Of ARGV: 7 fingerprints, 8 positions, 9 places, which are the fingerprints' first 20 bits, in three octets each.
local function find_fresh(key, n, total, expected)
  local newest = n > 0 and generation(math.max(total, expected)) or -1
  local prints, known, filled, bucketed, positions = cut('c8', n, ARGV[7]), {}, {}, {}, {}
  local places, found
  for g = generation(expected), newest do
    places = g == 2 and cut('c3xxxxx', n, ARGV[7]) or cut(g == 1 and 'c3' or 'c2x', n, ARGV[9])
    found = call('HMGET', key .. ':f' .. g, unpack(places))
    for i = 1, g < newest and n or 0 do known[i] = known[i] or found[i] and stands_in(found[i], prints[i]) end
  end
  for i = 1, newest < 0 and 0 or n do
    local place, print = places[i], prints[i]
    local at = filled[place]
    local bucket = at and bucketed[at] or found[i]
    if not (known[i] or bucket and stands_in(bucket, print)) then
      if not at then
        at = #bucketed + 2
        filled[place], bucketed[at - 1] = at, place
      end
      bucketed[at] = bucket and bucket .. print or print
      positions[#positions + 1] = byte(ARGV[8], i)
    end
  end
  return positions, bucketed, key .. ':f' .. newest
end
