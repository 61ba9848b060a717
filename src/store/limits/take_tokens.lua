-- Takes tokens from a token bucket: at most the wanted number, and at most the available number.
--
-- The clock is that of Redis, so all daemons share it. If the clock goes back, the bucket is not
-- refilled. If the clock leaps ahead, the bucket is full at most.
-- KEYS: bucket
-- ARGV: tokens per second, capacity, wanted tokens
-- Answer: { tokens taken, milliseconds until the next token }.
local rate, capacity, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local stored = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, filled_at = tonumber(stored[1]) or capacity, tonumber(stored[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - filled_at) * rate / 1000)
local taken = math.min(wanted, math.floor(tokens))
tokens = tokens - taken
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', now)
redis.call('EXPIRE', KEYS[1], math.ceil(capacity / rate) + 60)
local wait = tokens >= 1 and 0 or math.ceil((1 - tokens) * 1000 / rate)
return { taken, wait }
