-- Changes a delivery by compare-and-set on its revision, and writes the audit entry in one step.
--
-- KEYS: delivery, audit chain, then the keys to be written once
-- ARGV: 1 expected revision, 2 new state, 3 new document, 4 audit entry ('' for none),
--       5 when the scheduler must look at the recurrence (Unix seconds, '' for never),
--       then value and lifetime in seconds of each key to be written once,
--       then the seal, last the unit ('' for none) and the generation of the plan (0 for none)
-- Answer: { OK, new revision, nil }, or { LOST, current revision, nil },
--         or { FORBIDDEN, index of the key that exists already (from 0), its value }.
local revision = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
for i = 3, #KEYS do
  local value = redis.call('GET', KEYS[i])
  if value then return { FORBIDDEN, i - 3, value } end
end
if revision ~= tonumber(ARGV[1]) then return { LOST, revision, false } end
redis.call('HSET', KEYS[1],
  'revision', revision + 1, 'state', ARGV[2], 'document', ARGV[3], 'seal', ARGV[#ARGV - 2],
  'planned', ARGV[#ARGV])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'wakes', ARGV[5])
else
  redis.call('HDEL', KEYS[1], 'wakes')
end
if ARGV[#ARGV - 1] ~= '' then
  redis.call('HSET', KEYS[1], 'unit', ARGV[#ARGV - 1])
else
  redis.call('HDEL', KEYS[1], 'unit')
end
if ARGV[4] ~= '' then redis.call('RPUSH', KEYS[2], ARGV[4]) end
for i = 3, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2 * i], 'EX', ARGV[2 * i + 1])
end
return { OK, revision + 1, false }
