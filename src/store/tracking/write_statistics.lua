-- Writes what was made of a tracking log, if its delivery and all labels are what they were when it was read.
-- KEYS: delivery, tracking, what is written   ARGV: revision, changes of labels, by how much these are raised, then of each range
-- where it begins, the bytes that stand there, the bytes instead; or where it begins is -1: all is replaced
-- Answers the changes of labels, -1 if nothing was written. A range that is not what it was stays as it is.
if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[1] then return -1 end
local labels = tonumber(redis.call('HGET', KEYS[2], 'labels') or 0)
if labels ~= tonumber(ARGV[2]) then return -1 end
for i = 4, #ARGV, 3 do
  local at, before, instead = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  if at < 0 then
    redis.call('SET', KEYS[3], instead)
  elseif redis.call('GETRANGE', KEYS[3], at, at + #before - 1) == before then
    redis.call('SETRANGE', KEYS[3], at, instead)
  end
end
if ARGV[3] ~= '0' then labels = redis.call('HINCRBY', KEYS[2], 'labels', ARGV[3]) end
return labels
