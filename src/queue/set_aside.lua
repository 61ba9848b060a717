-- Sets aside as dead a job that no worker can take. Its meta fields may be the fault, so they are
-- written anew.
-- KEYS: <queue>:inflight:<worker>, <queue>:dead, <queue>:meta:<id>
-- ARGV: id, result (JSON), now (s)
-- Returns 1, or 0 if the worker did not have the job.
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'attempts', 0, 'max_attempts', 25, 'status', 'Killed',
  'idempotency_key', '', 'result', ARGV[2], 'done_at', ARGV[3])
return 1
