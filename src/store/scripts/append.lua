-- Appends to a list if it has the length that was seen.
-- KEYS: list   ARGV: length, value
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[2])
return 1
