-- ARGV: a namespace; random bytes for it. Values without marks were found in it; its record.
local found = drawn(ARGV[1], ARGV[2])
holds_plain(ARGV[1], found)
return record(ARGV[1])
