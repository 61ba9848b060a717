-- Writes a result that was computed from a tracking log, unless its basis has changed meanwhile.
--
-- The basis is the revision of the delivery and the number of label changes.
-- KEYS: delivery, tracking counters, key to write
-- ARGV: 1 revision, 2 label changes, 3 by how much to raise the label changes,
--       then for each range: offset, expected bytes, new bytes.
--       Offset -1 replaces the whole value.
-- Answer: the number of label changes, or -1 if the basis has changed: then nothing is written.
--         A range with other bytes than expected stays as it is.
if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[1] then return -1 end
local label_changes = tonumber(redis.call('HGET', KEYS[2], 'labels') or 0)
if label_changes ~= tonumber(ARGV[2]) then return -1 end
for i = 4, #ARGV, 3 do
  local at, before, after = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  if at < 0 then
    redis.call('SET', KEYS[3], after)
  elseif redis.call('GETRANGE', KEYS[3], at, at + #before - 1) == before then
    redis.call('SETRANGE', KEYS[3], at, after)
  end
end
if ARGV[3] ~= '0' then label_changes = redis.call('HINCRBY', KEYS[2], 'labels', ARGV[3]) end
return label_changes
