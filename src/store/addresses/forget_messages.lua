-- Takes all messages of some preparations out of buckets of the index.
-- KEYS: buckets   ARGV: the numbers of the preparations, u32 each
local ENTRY = 14
local gone = {}
for i = 1, #ARGV do gone[ARGV[i]] = true end
for i = 1, #KEYS do
  local raw, kept, from = redis.call('GET', KEYS[i]) or '', {}, 1
  for at = 1, #raw, ENTRY do
    if gone[string.sub(raw, at + 6, at + 9)] then
      kept[#kept + 1] = string.sub(raw, from, at - 1)
      from = at + ENTRY
    end
  end
  if from > 1 then
    kept[#kept + 1] = string.sub(raw, from)
    local rest = table.concat(kept)
    if rest == '' then redis.call('DEL', KEYS[i]) else redis.call('SET', KEYS[i], rest) end
  end
end
return #KEYS
