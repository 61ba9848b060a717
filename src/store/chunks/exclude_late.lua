-- Takes recipients out of a chunk before any of it is sent, and notes that it was looked at. Only who was never claimed is
-- taken out, and who was and certainly got nothing.
-- KEYS: ledger, counts   ARGV: owner, epoch, sequence number, now, who: position (2) and cause (1) of each
-- Answers { verdict, how many were taken out }. Sent again after a lost answer it changes nothing.
local ledger, now, who = KEYS[1], tonumber(ARGV[4]), ARGV[5]
local h = header(ledger)
local verdict, again = enter(ledger, h, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if verdict ~= OK or again then return { verdict, 0 } end
local sum, excluded = {}, 0
load(ledger, 0, h.count - 1)
for at = 1, #who, 3 do
  local position, cause = unpack('>I2B', who, at)
  local r = position < h.count and read(position)
  if r and (r.status == PENDING or r.status == DEFERRED) and not has(r.flags, RESENT) and not has(r.flags, ACCEPTED) then
    alter(position, r, sum, function() r.status, r.reason, r.when = EXCLUDED, cause, now end)
    excluded = excluded + 1
  end
end
publish(ledger, KEYS[2], sum)
redis.call('SETRANGE', ledger, 1, string.char(bor(h.mode, 2)))
return { OK, excluded }
