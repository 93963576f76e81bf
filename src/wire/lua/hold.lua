-- KEYS: the key. ARGV: the token of a lease; how long it is to live from now in milliseconds; 1 to give it back: what is left of it
-- then is for those who compute without. Whether it was held.
local lease = 'lk:' .. KEYS[1]
if token_of(KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[3] == '1' then
  redis.call('SET', lease, ARGV[1]:sub(1, 8), 'PX', ARGV[2])
else
  redis.call('PEXPIRE', lease, ARGV[2])
end
return 1
