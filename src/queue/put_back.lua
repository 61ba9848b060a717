-- Puts a job of a worker that ended back on the queue.
-- KEYS: <queue>:inflight:<worker>, <queue>:active
-- ARGV: id
-- Returns 1, or 0 if the worker did not have the job.
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[1])
return 1
