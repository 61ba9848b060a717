-- Holds the store, unless it is held already since an earlier time.
--
-- KEYS: hold
-- ARGV: since when the store is behind, why, now (Unix seconds)
-- Answer: 1 if the hold is new or begins earlier now, else 0.
local held = tonumber(redis.call('HGET', KEYS[1], 'since') or 'inf')
if held <= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'since', ARGV[1], 'why', ARGV[2], 'found', ARGV[3])
return 1
