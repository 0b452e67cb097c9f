-- include: lib
-- Shared by submit and seal: whether batch k, as it stands, is the caller's, and so are all before it. `digests`: 8 octets over the rows of all
-- up to k, then 8 over its own rows, which is what the release before kept.
local function stands_as(stored, digests) local d = sub(stored, 1, 8) return d == sub(digests, 1, 8) or d == sub(digests, 9, 16) end
