-- ARGV: a namespace; random bytes; a word that no other call has; 1 to look in any case. Whether what it holds must be looked at one by one: there
-- may be values without marks, or with those of a namespace that it lies in.
local namespace, look = ARGV[1], ARGV[4] == '1'
local all = redis.call('HGETALL', RECORDS)
for at = 1, #all, 2 do
  local field, found = all[at], all[at + 1]
  local name = field:sub(3)
  if begins(field, 'n:') and name ~= namespace then
    if begins(name, namespace) then
      look = look or found:sub(9) ~= '0'
      redis.call('HDEL', RECORDS, field)
    elseif begins(namespace, name) then
      look = true
    end
  end
end
local found = record(namespace)
look = look or not found or found:sub(9) ~= '0'
redis.call('HSET', RECORDS, 'n:' .. namespace, ARGV[2] .. (look and ARGV[3] or '0'))
-- Who tracks this hears of it.
redis.call('SET', '__larder:!n:' .. namespace, '')
redis.call('DEL', '__larder:!n:' .. namespace)
return look and 1 or 0
