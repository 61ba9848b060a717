-- What came back for a recipient after its message was on its way: a bounce, or a hit by a human. It needs no lease, for it
-- proves that the relay took the message, whoever knows of it.
-- KEYS: ledger, counts   ARGV: position, evidence (bounce, hit), now, failure reason and flags of a bounce
-- Answers { verdict, whether it changed the recipient (0 or 1) }.
local ledger, position, is_bounce, now = KEYS[1], tonumber(ARGV[1]), ARGV[2] == 'bounce', tonumber(ARGV[3])
local h = header(ledger)
if not h or position >= h.count then return { MISSING, 0 } end
load(ledger, position, position)
local r, sum = read(position), {}
if is_bounce and r.status ~= FAILED and r.status ~= EXCLUDED then
  alter(position, r, sum, function()
    r.status, r.reason, r.when = FAILED, tonumber(ARGV[4]), now
    r.flags = bor(band(r.flags, RESENT + DUPLICATE + ACCEPTED), BOUNCED, tonumber(ARGV[5]))
  end)
elseif not is_bounce and r.status == IN_DOUBT then
  prove(position, r, sum, now)
else
  return { OK, 0 }
end
publish(ledger, KEYS[2], sum)
return { OK, 1 }
