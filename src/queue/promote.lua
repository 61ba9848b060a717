-- Moves due retries to the queue, a few at a time.
-- apalis itself moves all at once, and fails for good at some 8000.
-- KEYS: <queue>:scheduled, <queue>:active
-- ARGV: now (s), the most to move
-- Returns how many were moved.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('RPUSH', KEYS[2], id)
end
return #due
