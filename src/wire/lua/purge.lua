-- KEYS: keys that may be removed. ARGV: length of the namespace that was cleared, '' to remove what is dead alone; else also
-- what has no marks, or those of a shorter one.
local removed = 0
for _, key in ipairs(KEYS) do
  local found, namespace = state(key)
  local marked = found == 'alive' or found == 'stale'
  local wide = ARGV[1] ~= '' and (found == 'plain' or marked and #namespace < tonumber(ARGV[1]))
  if found == 'dead' or wide then
    removed = removed + redis.call('UNLINK', key)
  end
end
return removed
