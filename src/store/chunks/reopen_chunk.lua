-- Opens an offered chunk again because its job is gone, unless it got another job meanwhile.
--
-- KEYS: open chunks, offered chunks, rounds
-- ARGV: chunk, round that the caller saw, now
-- Answer: 1 if the chunk is open again, else 0.
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then return 0 end
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
return 1
