-- Forgets a dead job.
-- KEYS: <queue>:dead, <queue>:data, <queue>:meta:<id>
-- ARGV: id
-- Returns 1, or 0 if there is no such dead job.
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
