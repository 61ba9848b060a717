-- Appends an entry to the chain of heads or to the chain of operations.
--
-- Does nothing if the chain has another length than the caller saw.
-- KEYS: the chain, the number of each chain's last entry in the chain of heads
-- ARGV: length of the chain, entry, then for the chain of heads the name of the chain whose head
--       the entry is, else ''
-- Answer: 1 if appended, else 0.
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], ARGV[3], ARGV[1] + 1) end
return 1
