-- What stands before each script of ours: namespaces, tags, and the marks that a value carries of them.
-- docs/FORMAT.md has the records.
local RECORDS = '__larder:namespaces'

-- A number of two bytes.
local function short(text, at)
  local low, high = text:byte(at, at + 1)
  return high and low + high * 256
end

local function two_bytes(number)
  return string.char(number % 256, math.floor(number / 256))
end

-- The record of a namespace: its generation in 8 bytes, and whether it holds values without marks.
local function record(namespace)
  return redis.call('HGET', RECORDS, 'n:' .. namespace)
end

-- The same, drawn where there is none. Values without marks may be there then, for all that anybody knows.
local function drawn(namespace, random)
  local found = record(namespace)
  if not found then
    found = random .. '1'
    redis.call('HSET', RECORDS, 'n:' .. namespace, found)
  end
  return found
end

-- Values without marks are in a namespace from now on.
local function holds_plain(namespace, found)
  if found:sub(9) ~= '1' then
    redis.call('HSET', RECORDS, 'n:' .. namespace, found:sub(1, 8) .. '1')
  end
end

local function tag_key(namespace, tag)
  return '__larder:t:' .. #namespace .. ':' .. namespace .. tag
end

local function begins(text, prefix)
  return text:sub(1, #prefix) == prefix
end

-- How many invalidations of tags there were in a namespace.
local function count_of(namespace)
  return tonumber(redis.call('HGET', RECORDS, 't:' .. namespace) or 0)
end

-- The tags of a namespace that were invalidated last, the latest at the end.
local REMEMBERED = 8192
local function list_key(namespace)
  return '__larder:r:' .. namespace
end

-- A tag in that list.
local function short_of(tag)
  return redis.sha1hex(tag):sub(1, 16)
end

-- Those that were invalidated after so many invalidations; nothing if not all of them are remembered.
local function invalidated_since(namespace, count)
  local later = count_of(namespace) - count
  local found = {}
  if later == 0 then
    return found
  end
  if later < 0 or later > redis.call('LLEN', list_key(namespace)) then
    return nil
  end
  for _, tag in ipairs(redis.call('LRANGE', list_key(namespace), -later, -1)) do
    found[tag] = true
  end
  return found
end

-- A number of four bytes.
local function long(text, at)
  return short(text, at) + short(text, at + 2) * 65536
end

-- What stands under a key: nothing, 'plain' without marks, 'dead', 'alive' or, past its life, 'stale' by its marks; its namespace;
-- its tags; for how many milliseconds it is kept past its life; how long its payload is, in bytes.
local function state(key)
  local head = redis.pcall('GETRANGE', key, 0, 27)
  if type(head) == 'table' then
    return 'plain'
  end
  if head == '' then
    return redis.call('EXISTS', key) == 1 and 'plain' or nil
  end
  if #head < 28 or head:byte(1) ~= 193 or head:byte(2) ~= 1 or head:byte(4) % 4 < 2 then
    return 'plain'
  end
  -- What only looks like an envelope is somebody else's.
  local length = short(redis.call('GETRANGE', key, -2, -1), 1)
  local payload = long(head, 25)
  if 36 + payload + length ~= redis.call('STRLEN', key) then
    return 'plain'
  end
  local marks = redis.call('GETRANGE', key, -length, -1)
  if #marks < 21 then
    return 'dead'
  end
  local namespace = key:sub(1, short(marks, 1))
  local found = record(namespace)
  if not found or found:sub(1, 8) ~= marks:sub(3, 10) then
    return 'dead', namespace
  end
  local at, tags = 12, {}
  for _ = 1, marks:byte(11) do
    local size = marks:byte(at) or 0
    local tag = marks:sub(at + 1, at + size)
    local now = redis.call('GET', tag_key(namespace, tag))
    if not now or now ~= marks:sub(at + size + 1, at + size + 8) then
      return 'dead', namespace
    end
    tags[#tags + 1] = tag
    at = at + size + 9
  end
  local grace, left = long(head, 17), -1
  if grace > 0 then
    left = redis.call('PTTL', key)
  end
  local rearmed = head:byte(4) % 8 >= 4
  return (rearmed or left >= 0 and left <= grace) and 'stale' or 'alive', namespace, tags, grace, payload
end

-- The record of a tag lives as long as whatever carries it. Milliseconds, '' for ever.
local function outlives(name, life)
  if life == '' then
    redis.call('PERSIST', name)
    return
  end
  local left = redis.call('PTTL', name)
  if left >= 0 and left < tonumber(life) then
    redis.call('PEXPIRE', name, life)
  end
end

local function is_there(key)
  local found = state(key)
  return found == 'plain' or found == 'alive'
end

-- What bytes of a value tell it from others: all, or of more than 4096 as many at both ends.
local function excerpt(key, from, size)
  if size <= 4096 then
    return size .. ':' .. (size > 0 and redis.call('GETRANGE', key, from, from + size - 1) or '')
  end
  local head = redis.call('GETRANGE', key, from, from + 2047)
  return size .. ':' .. head .. redis.call('GETRANGE', key, from + size - 2048, from + size - 1)
end

-- The time in milliseconds.
local function clock()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- What is noted of those who compute a key.
local function token_of(key)
  local token = redis.pcall('GET', 'lk:' .. key)
  return type(token) == 'string' and token or nil
end

-- What a compute that begins now depends on: what stands there; behind that, where it may go by itself, what it is once that is gone, and
-- when that may be at the earliest; nothing without its token. What is dead is as good as not there, and what is past its life may be
-- gone, or rearmed, by the time the value is stored: of values of ours the payload counts alone.
local function fingerprint(key, found)
  local token = token_of(key)
  if not token or not found then
    return false
  end
  local before = token:sub(1, 8) .. found:sub(1, 8)
  local stands, _, _, _, payload = state(key)
  if not stands or stands == 'dead' then
    return redis.sha1hex(before .. 'dead')
  end
  local size = redis.pcall('STRLEN', key)
  local text = 'other'
  if payload then
    text = excerpt(key, 28, payload)
  elseif type(size) == 'number' then
    text = excerpt(key, 0, size)
  end
  local ends, left = 0, -1
  if stands ~= 'stale' then
    left = redis.call('PTTL', key)
    ends = clock() + left
  end
  local gone = ''
  if stands == 'stale' or left >= 0 then
    gone = redis.sha1hex(before .. 'dead') .. string.format('%.0f', ends)
  end
  return redis.sha1hex(before .. text) .. gone
end

-- Whether a key is as it was when a compute began, for all that the compute depends on.
local function is_as_it_was(key, found, noted)
  local now = fingerprint(key, found)
  if not now then
    return false
  end
  local stands, gone = now:sub(1, 40), now:sub(41, 80)
  if stands == noted:sub(1, 40) then
    return true
  end
  -- Only what is past its life counts as gone though it stands there.
  local ends = tonumber(now:sub(81))
  gone = ends == 0 and gone or stands
  return gone == noted:sub(1, 40) or gone == noted:sub(41, 80) and clock() >= tonumber(noted:sub(81))
end

-- Who computes a value of this key now must not store it.
local function void(key)
  redis.call('UNLINK', 'lk:' .. key)
end
