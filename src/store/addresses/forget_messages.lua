-- Removes all messages of some preparations from buckets of the message index.
--
-- KEYS: buckets
-- ARGV: the numbers of the preparations, each as u32
-- Answer: the number of buckets.
local ENTRY = 14
local removed = {}
for i = 1, #ARGV do removed[ARGV[i]] = true end
for i = 1, #KEYS do
  local bucket, kept, from = redis.call('GET', KEYS[i]) or '', {}, 1
  for at = 1, #bucket, ENTRY do
    if removed[string.sub(bucket, at + 6, at + 9)] then
      kept[#kept + 1] = string.sub(bucket, from, at - 1)
      from = at + ENTRY
    end
  end
  if from > 1 then
    kept[#kept + 1] = string.sub(bucket, from)
    local rest = table.concat(kept)
    if rest == '' then redis.call('DEL', KEYS[i]) else redis.call('SET', KEYS[i], rest) end
  end
end
return #KEYS
