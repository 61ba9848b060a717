-- Puts a job on the queue unless a job with this id still exists.
-- This is the public contract: docs/queue.md shows the script.
-- KEYS: <queue>:data, <queue>:meta:<id>, <queue>:active
-- ARGV: id, payload
-- Returns 1 if the job was queued, else 0.
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'attempts', 0, 'max_attempts', 25, 'status', 'Pending', 'idempotency_key', '',
  'queued_at', redis.call('TIME')[1])
redis.call('RPUSH', KEYS[3], ARGV[1])
return 1
