-- KEYS: the key. ARGV: milliseconds to live, '' for ever. Whether there was anything.
local found, namespace, tags = state(KEYS[1])
if found ~= 'plain' and found ~= 'alive' then
  return 0
end
if ARGV[1] == '' then
  redis.call('PERSIST', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
for _, tag in ipairs(tags or {}) do
  outlives(tag_key(namespace, tag), ARGV[1])
end
return 1
