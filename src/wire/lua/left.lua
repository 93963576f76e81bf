-- KEYS: the key. The milliseconds that are left of its life: -1 for ever, -2 nothing.
return is_there(KEYS[1]) and redis.call('PTTL', KEYS[1]) or -2
