-- The list of daemons that are there, by the clock of Redis: whoever does not come back within ten seconds is off it.
-- KEYS: attendance, arrivals   ARGV: this daemon
-- Answers { milliseconds since this daemon came, its place from 0, how many there are }.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - 10000)) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZADD', KEYS[2], 'NX', now, ARGV[1])
local here = redis.call('ZRANGE', KEYS[2], 0, -1)
local place = 0
for i, daemon in ipairs(here) do
  if daemon == ARGV[1] then place = i - 1 end
end
return { math.max(0, now - tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]))), place, #here }
