-- Chooses the open chunks of a delivery that get a job now.
--
-- At most `window` chunks of a delivery are offered at a time. Poisoned chunks get no job.
-- The delivery keeps the virtual time of its last job: see store/chunks/waiting_deliveries.rs.
-- KEYS: delivery, open chunks, offered chunks, rounds, poisoned chunks
-- ARGV: now, window, maximum of chunks to choose now, virtual time
-- Answer: { chunk, round, chunk, round, ... }.
if redis.call('HGET', KEYS[1], 'state') ~= 'in_progress' then return {} end
local room = math.min(tonumber(ARGV[2]) - redis.call('ZCARD', KEYS[3]), tonumber(ARGV[3]))
if room <= 0 then return {} end
local jobs = {}
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, room)) do
  redis.call('ZREM', KEYS[2], chunk)
  if redis.call('SISMEMBER', KEYS[5], chunk) == 0 then
    redis.call('ZADD', KEYS[3], ARGV[1], chunk)
    jobs[#jobs + 1] = tonumber(chunk)
    jobs[#jobs + 1] = redis.call('HINCRBY', KEYS[4], chunk, 1)
  end
end
if #jobs > 0 then redis.call('HSET', KEYS[1], 'served', ARGV[4]) end
return jobs
