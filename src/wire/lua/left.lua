-- KEYS: the key. The milliseconds that are left of its life: -1 for ever, -2 nothing.
local found, _, _, grace = state(KEYS[1])
if found ~= 'plain' and found ~= 'alive' then
  return -2
end
local left = redis.call('PTTL', KEYS[1])
return left < 0 and left or left - (grace or 0)
