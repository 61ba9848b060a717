-- What hit.lua has left: who was in doubt and was seen to read the message has got it.
local sum = {}
for _, proof in ipairs(proofs) do
  local ledger, position = proof[1], proof[2]
  load(ledger, position, position)
  local r = read(position)
  if r.status == IN_DOUBT then
    prove(position, r, sum, tonumber(ARGV[2]))
    flush(ledger)
    dirty = {}
  end
end
publish(KEYS[5], KEYS[2], sum)
return recorded
