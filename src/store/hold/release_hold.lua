-- Releases the hold that the caller has seen, and notes the release.
--
-- KEYS: hold, last release
-- ARGV: since when the store is behind, as the caller has seen it; now (Unix seconds); who
-- Answer: 1 if the hold was released, 0 if there is another hold or none.
if redis.call('HGET', KEYS[1], 'since') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[2], 'since', ARGV[1], 'at', ARGV[2], 'by', ARGV[3])
return 1
