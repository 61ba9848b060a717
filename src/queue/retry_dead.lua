-- Puts a dead job back on the queue as if it were new.
-- KEYS: <queue>:dead, <queue>:data, <queue>:meta:<id>, <queue>:active
-- ARGV: id
-- Returns 1, or 0 if there is no such dead job or it has no payload.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'attempts', 0, 'max_attempts', 25, 'status', 'Pending',
  'idempotency_key', '', 'queued_at', redis.call('TIME')[1])
redis.call('RPUSH', KEYS[4], ARGV[1])
return 1
