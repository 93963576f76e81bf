-- KEYS: keys that are read, and computed where nothing is within its life. ARGV: length of the namespace, random bytes for it, a
-- token of 16 bytes, how long it is to live in milliseconds, 1 if a value within its life is to be computed too.
-- For each: what stands there, and what is left of it; behind that nothing where it is within its life; or a fingerprint, and how
-- many invalidations of tags there were; or for how long another has the lease.
local answers = {}
for at, key in ipairs(KEYS) do
  local stands, _, _, grace = state(key)
  local lease, answer = 'lk:' .. key, { false, -2 }
  if stands and stands ~= 'dead' then
    answer = { redis.pcall('GET', key), redis.call('PTTL', key) }
  end
  -- What was rearmed is not to be computed yet.
  local rests = stands == 'alive' or stands == 'plain' or stands == 'stale' and answer[2] > grace
  if ARGV[5] == '1' or not rests then
    local token = redis.call('GET', lease)
    if token and #token == 16 and token ~= ARGV[3] then
      answer[3] = redis.call('PTTL', lease)
    else
      local namespace = key:sub(1, tonumber(ARGV[1]))
      local found = drawn(namespace, ARGV[2])
      redis.call('SET', lease, ARGV[3], 'PX', ARGV[4])
      answer[3], answer[4] = fingerprint(key, found), count_of(namespace)
    end
  end
  answers[at] = answer
end
return answers
