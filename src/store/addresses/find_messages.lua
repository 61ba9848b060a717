-- Finds the messages to some addresses in the message index.
--
-- An entry has 14 bytes: 6 of the address digest, preparation (u32), recipient number (u32).
-- KEYS: for each address its bucket
-- ARGV: for each address the 6 bytes of its digest that entries hold
-- Answer: for each address the preparation and the recipient number of every message.
local ENTRY = 14
local found = {}
for i = 1, #KEYS do
  local bucket, messages = redis.call('GET', KEYS[i]) or '', {}
  local at = string.find(bucket, ARGV[i], 1, true)
  while at do
    -- The same bytes at any other offset are a coincidence.
    if (at - 1) % ENTRY == 0 then messages[#messages + 1] = string.sub(bucket, at + 6, at + 13) end
    at = string.find(bucket, ARGV[i], at + 1, true)
  end
  found[i] = table.concat(messages)
end
return found
