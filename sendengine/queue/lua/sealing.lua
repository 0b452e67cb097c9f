-- include: states
-- Shared by seal and submit_last: the list of a campaign ends here.
function conclude(id)
  local key = send_key(id)
  call('HSET', key, 'sealed', 1, 'sealed_at', int(clock()))
  for g = 0, 2 do call('UNLINK', key .. ':f' .. g) end
  call('HDEL', key, 'prints', 'unended')
  sync_run(id)
  advance()
  finish_if_done(id)
end
