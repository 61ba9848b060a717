-- Counts a start of a job that this worker has in flight.
-- KEYS: <queue>:inflight:<worker>, <queue>:meta:<id>
-- ARGV: id
-- Returns how often the job was started without an end, or 0 if this worker does not have it.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 0 end
return redis.call('HINCRBY', KEYS[2], 'starts', 1)
