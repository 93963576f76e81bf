-- KEYS: keys that are computed. ARGV: length of the namespace, random bytes for it, a token, its life in milliseconds.
-- For each a fingerprint, and how many invalidations of tags there were.
local answers = {}
for at, key in ipairs(KEYS) do
  local namespace = key:sub(1, tonumber(ARGV[1]))
  local found = drawn(namespace, ARGV[2])
  local token = token_of(key)
  -- One of 16 bytes is a lease, which lives as long as its holder has it.
  if not token then
    redis.call('SET', 'lk:' .. key, ARGV[3], 'PX', ARGV[4])
  elseif #token ~= 16 then
    redis.call('PEXPIRE', 'lk:' .. key, ARGV[4])
  end
  answers[at] = { fingerprint(key, found), count_of(namespace) }
end
return answers
