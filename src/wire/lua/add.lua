-- KEYS: the key. ARGV: what to add; length of the namespace; random bytes for it. The sum as text: a number of Lua has not
-- room for all of it.
local key, namespace = KEYS[1], KEYS[1]:sub(1, tonumber(ARGV[2]))
local found = state(key)
if found == 'dead' or found == 'stale' then
  redis.call('UNLINK', key)
end
local sum = redis.pcall('INCRBY', key, ARGV[1])
if type(sum) == 'table' then
  return sum
end
holds_plain(namespace, drawn(namespace, ARGV[3]))
void(key)
return redis.call('GET', key)
