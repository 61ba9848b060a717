-- Forgets jobs that ended long enough ago.
-- KEYS: <queue>:done or <queue>:dead, <queue>:data
-- ARGV: prefix of the meta keys, cutoff (s), id...
-- Returns how many jobs were forgotten.
local swept = 0
for i = 3, #ARGV do
  local meta = ARGV[1] .. ARGV[i]
  local done_at = tonumber(redis.call('HGET', meta, 'done_at') or 0) or 0
  if done_at <= tonumber(ARGV[2]) and redis.call('SREM', KEYS[1], ARGV[i]) == 1 then
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('DEL', meta)
    swept = swept + 1
  end
end
return swept
