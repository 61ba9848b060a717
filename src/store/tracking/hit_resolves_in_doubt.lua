-- Makes recipients in doubt sent, because a human hit proves that the message was delivered.
--
-- Runs behind record_hits.lua and the prelude, in the same script, and only if there is such a hit.
-- KEYS and ARGV are those of record_hits.lua.
-- Answer: the number of recorded hits.
local deltas = {}
for _, proof in ipairs(proofs) do
  local ledger, position = proof[1], proof[2]
  load_records(ledger, position, position)
  local record = read_record(position)
  if record.status == IN_DOUBT then
    prove_delivery(position, record, deltas, tonumber(ARGV[2]))
    write_changed(ledger)
    changed = {}
  end
end
write_back(KEYS[5], KEYS[2], deltas)
return recorded
