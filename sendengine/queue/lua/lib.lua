-- include: core
-- What begins each call. KEYS[1] is a lane of the account, A; every other key is formed from it. B is what belongs to the account, whatever the
-- lane: the e-mail lane is B itself, {m1234}; another's name stands behind it.
A, charged, begun = KEYS[1], 0, 0
B = byte(A, -1) == 125 and A or string.match(A, '^[^}]*}')
