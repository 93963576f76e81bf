-- ARGV: a namespace; a tag. Its generation is drawn anew when it is needed.
local namespace, tag = ARGV[1], ARGV[2]
local list = (redis.call('HGET', RECORDS, 'r:' .. namespace) or '') .. short_of(tag)
redis.call('HSET', RECORDS, 'r:' .. namespace, list:sub(-16 * REMEMBERED))
redis.call('UNLINK', tag_key(namespace, tag))
local told = '__larder:!t:' .. #namespace .. ':' .. namespace .. tag
redis.call('SET', told, '')
redis.call('DEL', told)
return redis.call('HINCRBY', RECORDS, 't:' .. namespace, 1)
