-- KEYS: the key. ARGV: milliseconds to live, '' for ever. Whether there was anything.
if not is_there(KEYS[1]) then
  return 0
end
if ARGV[1] == '' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
