-- ARGV: a namespace; a tag. Its generation is drawn anew when it is needed.
local namespace, tag = ARGV[1], ARGV[2]
redis.call('RPUSH', list_key(namespace), short_of(tag))
redis.call('LTRIM', list_key(namespace), -REMEMBERED, -1)
redis.call('UNLINK', tag_key(namespace, tag))
local told = '__larder:!t:' .. #namespace .. ':' .. namespace .. tag
redis.call('SET', told, '')
redis.call('DEL', told)
return redis.call('HINCRBY', RECORDS, 't:' .. namespace, 1)
