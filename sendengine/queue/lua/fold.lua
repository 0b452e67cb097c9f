-- include: lib noting
-- What runs have counted so far becomes lines that the audit trail can take.  KEYS[1] B.
fold()
