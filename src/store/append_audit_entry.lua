-- Appends an entry to the chain of heads or to the chain of operations.
--
-- Does nothing if the chain has another length than the caller saw, or if the chain of heads
-- already holds this head or a newer one.
-- KEYS: the chain, sequence number of the last head of each chain
-- ARGV: length of the chain, entry, then for the chain of heads: name of the chain whose head it
--       is, sequence number of that head (0 for an operation)
-- Answer: 1 if appended, else 0.
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
local seq = tonumber(ARGV[4])
if seq > 0 then
  if tonumber(redis.call('HGET', KEYS[2], ARGV[3]) or '0') >= seq then return 0 end
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
end
redis.call('RPUSH', KEYS[1], ARGV[2])
return 1
