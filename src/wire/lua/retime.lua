-- KEYS: the key. ARGV: milliseconds to live, '' for ever. Whether there was anything.
local found, namespace, tags, grace = state(KEYS[1])
if found ~= 'plain' and found ~= 'alive' then
  return 0
end
local life = ARGV[1]
if life == '' then
  redis.call('PERSIST', KEYS[1])
else
  life = string.format('%.0f', tonumber(life) + (grace or 0))
  redis.call('PEXPIRE', KEYS[1], life)
end
for _, tag in ipairs(tags or {}) do
  outlives(tag_key(namespace, tag), life)
end
return 1
