-- Shared by the scripts of credits: whether these channels of an account (its field, false where it names none) hold e-mail; policy/credits.py
-- is the twin. An account that names none has all.
local function holds_mail(channels)
  local is_named = false
  for word in string.gmatch(string.lower(channels or ''), '[%a-]+') do
    is_named = true
    if word == 'mail' or word == 'email' or word == 'e-mail' then return true end
  end
  return not is_named
end
