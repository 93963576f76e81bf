-- KEYS: the key. ARGV: the value; length of the namespace; milliseconds to live, '' for ever; 'always', 'absent' or
-- 'computed'; random bytes for what must be drawn; 1 if the value takes marks; of a compute its fingerprint and count; tags.
-- 0 stored, 1 there is something, 2 invalidated since the compute began.
local key, value, namespace = KEYS[1], ARGV[1], KEYS[1]:sub(1, tonumber(ARGV[2]))
local life, when, random = ARGV[3], ARGV[4], ARGV[5]
local TAGS = 9
local found = record(namespace)
if when == 'computed' and not is_as_it_was(key, found, ARGV[7]) then
  return 2
end
if when == 'absent' and is_there(key) then
  return 1
end
found = found or drawn(namespace, random)
if ARGV[6] == '1' then
  local marks = { two_bytes(#namespace), found:sub(1, 8), string.char(#ARGV - TAGS + 1) }
  if when == 'computed' and #ARGV >= TAGS then
    local gone = invalidated_since(namespace, tonumber(ARGV[8]))
    for at = TAGS, #ARGV do
      if not gone or gone[short_of(ARGV[at])] then
        return 2
      end
    end
  end
  for at = TAGS, #ARGV do
    local tag = ARGV[at]
    local name = tag_key(namespace, tag)
    local now = redis.call('GET', name)
    if not now then
      now = random
      redis.call('SET', name, now)
      if life ~= '' then
        redis.call('PEXPIRE', name, life)
      end
    else
      outlives(name, life)
    end
    marks[#marks + 1] = string.char(#tag) .. tag .. now
  end
  -- When, for who asks how old it is.
  marks[#marks + 1] = struct.pack('<I8', clock())
  marks = table.concat(marks)
  value = value .. marks .. two_bytes(#marks + 2)
else
  holds_plain(namespace, found)
end
if life == '' then
  redis.call('SET', key, value)
else
  redis.call('SET', key, value, 'PX', life)
end
-- That a compute failed, as what is rearmed tells, is no reason to refuse another's value.
if ARGV[6] ~= '1' or value:byte(4) % 8 < 4 then
  void(key)
end
return 0
