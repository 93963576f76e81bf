-- KEYS: keys that are computed. ARGV: length of the namespace, random bytes for it, a token, its life in milliseconds.
-- For each a fingerprint, and how many invalidations of tags there were.
local answers = {}
for at, key in ipairs(KEYS) do
  local namespace = key:sub(1, tonumber(ARGV[1]))
  local found = drawn(namespace, ARGV[2])
  if not redis.call('SET', 'lk:' .. key, ARGV[3], 'NX', 'PX', ARGV[4]) then
    redis.call('PEXPIRE', 'lk:' .. key, ARGV[4])
  end
  answers[at] = { fingerprint(key, found), count_of(namespace) }
end
return answers
