-- KEYS: the key. ARGV: a value without its marks. Removes it if that is what stands there.
if redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) == ARGV[1] then
  return redis.call('UNLINK', KEYS[1])
end
return 0
