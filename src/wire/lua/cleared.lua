-- ARGV: a namespace; the word of the call that cleared it. All that it held was looked at, unless others wrote meanwhile.
local found = record(ARGV[1])
if found and found:sub(9) == ARGV[2] then
  redis.call('HSET', RECORDS, 'n:' .. ARGV[1], found:sub(1, 8) .. '0')
end
return 1
