-- KEYS: keys to be removed. For each whether it held anything.
local answers = {}
for at, key in ipairs(KEYS) do
  answers[at] = is_there(key) and 1 or 0
  redis.call('UNLINK', key, 'lk:' .. key)
end
return answers
