-- Changes a delivery if nobody changed it meanwhile, and writes its audit entry in the same step.
-- KEYS: delivery, audit, then keys to be written once   ARGV: revision, state, document, audit entry ('' for none), when the task of
--       recurring deliveries is to look at it ('' for never), then value and seconds to live of each key to be written once,
--       then the generation of its plan, 0 for none
-- Answers { OK, revision, nil } or { LOST, revision, nil } or { FORBIDDEN, which of the keys was there, its value }.
local revision = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
for i = 3, #KEYS do
  local old = redis.call('GET', KEYS[i])
  if old then return { FORBIDDEN, i - 3, old } end
end
if revision ~= tonumber(ARGV[1]) then return { LOST, revision, false } end
redis.call('HSET', KEYS[1], 'revision', revision + 1, 'state', ARGV[2], 'document', ARGV[3], 'planned', ARGV[#ARGV])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'wakes', ARGV[5]) else redis.call('HDEL', KEYS[1], 'wakes') end
if ARGV[4] ~= '' then redis.call('RPUSH', KEYS[2], ARGV[4]) end
for i = 3, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2 * i], 'EX', ARGV[2 * i + 1])
end
return { OK, revision + 1, false }
