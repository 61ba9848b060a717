-- Counts a start of a job that this worker holds.
-- KEYS: <queue>:inflight:<worker>, <queue>:meta:<id>   ARGV: id
-- Returns how often it was started without an end, or 0 when the worker does not hold it
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 0 end
return redis.call('HINCRBY', KEYS[2], 'starts', 1)
