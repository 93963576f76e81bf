-- KEYS: the key. ARGV: the token of a lease; how long it is to live from now in milliseconds, '' to give it back. Whether it was held.
local lease = 'lk:' .. KEYS[1]
if redis.call('GET', lease) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '' then
  redis.call('UNLINK', lease)
else
  redis.call('PEXPIRE', lease, ARGV[2])
end
return 1
