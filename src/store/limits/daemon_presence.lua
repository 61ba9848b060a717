-- Notes that a daemon is present, and drops daemons that were not seen for ten seconds.
--
-- The clock is that of Redis.
-- KEYS: when each daemon was last seen, when each daemon arrived (sorted sets, milliseconds)
-- ARGV: this daemon
-- Answer: { milliseconds since this daemon arrived, its rank by arrival from 0,
--           number of daemons }.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - 10000)) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZADD', KEYS[2], 'NX', now, ARGV[1])
local present = redis.call('ZRANGE', KEYS[2], 0, -1)
local rank = 0
for i, daemon in ipairs(present) do
  if daemon == ARGV[1] then rank = i - 1 end
end
return { math.max(0, now - tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]))), rank, #present }
