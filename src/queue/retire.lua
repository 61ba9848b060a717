-- Removes the keys of a worker that is gone. Its jobs go back to the queue.
-- KEYS: <queue>:workers, <queue>:names, <queue>:inflight:<worker>,
--       <queue>:workers:metadata:<worker>, <queue>:active
-- ARGV: worker, '1' to do nothing if the worker is still registered
-- Returns how many jobs went back.
if ARGV[2] == '1' and redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local orphans = redis.call('SMEMBERS', KEYS[3])
for _, id in ipairs(orphans) do redis.call('RPUSH', KEYS[5], id) end
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return #orphans
