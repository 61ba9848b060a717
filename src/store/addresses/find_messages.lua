-- Looks addresses up in the index of messages.
-- KEYS: buckets   ARGV: for each the rest of the digest of an address
-- Answers for each the preparation and the recipient, u32 both, of every message to that address.
local ENTRY = 14
local found = {}
for i = 1, #KEYS do
  local raw, hits = redis.call('GET', KEYS[i]) or '', {}
  local at = string.find(raw, ARGV[i], 1, true)
  while at do
    -- anywhere else it is a chance
    if (at - 1) % ENTRY == 0 then hits[#hits + 1] = string.sub(raw, at + 6, at + 13) end
    at = string.find(raw, ARGV[i], at + 1, true)
  end
  found[i] = table.concat(hits)
end
return found
