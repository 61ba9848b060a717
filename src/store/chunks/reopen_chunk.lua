-- Puts a chunk whose job is gone back among those that want attention, if nobody has done so meanwhile.
-- KEYS: open, offered, rounds   ARGV: chunk, the round that was observed, now
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then return 0 end
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
return 1
