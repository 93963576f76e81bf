-- KEYS: keys that are read, and computed where nothing is within its life. ARGV: length of the namespace, random bytes for it, a
-- token of 16 bytes, how long it is to live in milliseconds, 1 if a value within its life is to be computed too.
-- For each: what stands there, and what is left of it; behind that nothing where it is within its life; or a fingerprint, how many
-- invalidations of tags there were, and the token; or for how long another has the lease.
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
    local token = token_of(key)
    local left = redis.call('PTTL', lease)
    -- One without an end is nobody's.
    if token and #token == 16 and left >= 0 then
      answer[3] = left
    else
      local namespace = key:sub(1, tonumber(ARGV[1]))
      local found = drawn(namespace, ARGV[2])
      -- Those who compute without a lease go on: the half that all depend on stays.
      token = (token or ARGV[3]):sub(1, 8) .. ARGV[3]:sub(9)
      redis.call('SET', lease, token, 'PX', ARGV[4])
      answer[3], answer[4], answer[5] = fingerprint(key, found), count_of(namespace), token
    end
  end
  answers[at] = answer
end
return answers
