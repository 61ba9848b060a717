-- A token bucket: takes as many tokens as are there, at most those that are wanted. The clock is that of Redis, so that all
-- daemons have the same; if it goes back nothing is filled up, if it leaps ahead the bucket is full, no more.
-- KEYS: bucket   ARGV: tokens per second, most tokens at once, wanted
-- Answers { tokens taken, milliseconds until the next one }.
local rate, most, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local old = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(old[1]) or most, tonumber(old[2]) or now
tokens = math.min(most, tokens + math.max(0, now - at) * rate / 1000)
local taken = math.min(wanted, math.floor(tokens))
tokens = tokens - taken
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', now)
redis.call('EXPIRE', KEYS[1], math.ceil(most / rate) + 60)
local wait = tokens >= 1 and 0 or math.ceil((1 - tokens) * 1000 / rate)
return { taken, wait }
