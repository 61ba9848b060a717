-- Chooses the chunks that want attention, within the delivery's window, and names a job for each.
-- Chunks that were set aside want none, whoever opened them.
-- The delivery keeps the virtual time of its last job: see send/release.rs.
-- KEYS: delivery, open, offered, rounds, aside   ARGV: now, window, most to be named now, virtual time
-- Answers { chunk, round, chunk, round, ... }.
if redis.call('HGET', KEYS[1], 'state') ~= 'in_progress' then return {} end
local free = math.min(tonumber(ARGV[2]) - redis.call('ZCARD', KEYS[3]), tonumber(ARGV[3]))
if free <= 0 then return {} end
local jobs = {}
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, free)) do
  redis.call('ZREM', KEYS[2], chunk)
  if redis.call('SISMEMBER', KEYS[5], chunk) == 0 then
    redis.call('ZADD', KEYS[3], ARGV[1], chunk)
    jobs[#jobs + 1] = tonumber(chunk)
    jobs[#jobs + 1] = redis.call('HINCRBY', KEYS[4], chunk, 1)
  end
end
if #jobs > 0 then redis.call('HSET', KEYS[1], 'served', ARGV[4]) end
return jobs
