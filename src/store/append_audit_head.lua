-- Appends to the chain of heads if it has the length that was seen and the delivery's newer head is not there yet.
-- KEYS: heads, noted   ARGV: length, entry, delivery, sequence number of its head
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
if tonumber(redis.call('HGET', KEYS[2], ARGV[3]) or '0') >= tonumber(ARGV[4]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
return 1
