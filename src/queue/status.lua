-- Reads where a job is, and how its last run ended.
-- KEYS: <queue>:data, <queue>:meta:<id>, <queue>:done, <queue>:dead, <queue>:scheduled,
--       <queue>:active, <queue>:workers
-- ARGV: id, prefix of the in-flight sets
-- Returns {state, attempts, result, done_at}, or {} if there is no such job.
local id = ARGV[1]
local known = redis.call('HEXISTS', KEYS[1], id) == 1
local state = 'lost'
if redis.call('SISMEMBER', KEYS[4], id) == 1 then state = 'dead'
elseif not known then return {}
elseif redis.call('SISMEMBER', KEYS[3], id) == 1 then state = 'done'
elseif redis.call('ZSCORE', KEYS[5], id) then state = 'retrying'
elseif redis.call('LPOS', KEYS[6], id) then state = 'waiting'
else
  for _, worker in ipairs(redis.call('ZRANGE', KEYS[7], 0, -1)) do
    if redis.call('SISMEMBER', ARGV[2] .. worker, id) == 1 then state = 'running' end
  end
end
local meta = redis.call('HMGET', KEYS[2], 'attempts', 'result', 'done_at')
return {state, meta[1] or '0', meta[2] or '', meta[3] or '0'}
