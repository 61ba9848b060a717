-- Appends an entry to the chain of heads.
--
-- Does nothing if the chain has another length than the caller saw, or if it already holds this
-- head of the delivery or a newer one.
-- KEYS: chain of heads, sequence number of the last head of each delivery
-- ARGV: length of the chain, entry, delivery, sequence number of its head
-- Answer: 1 if appended, else 0.
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
if tonumber(redis.call('HGET', KEYS[2], ARGV[3]) or '0') >= tonumber(ARGV[4]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
return 1
