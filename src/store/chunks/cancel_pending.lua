-- A stopped delivery: what was not begun is cancelled; what was to be sent again, and may have been accepted, is in doubt.
-- Needs no lease: claims check the state themselves.
-- KEYS: ledger, counts, delivery   ARGV: now
-- Answers { verdict, how many are still being attempted }.
local ledger, now = KEYS[1], tonumber(ARGV[1])
if redis.call('HGET', KEYS[3], 'state') ~= 'stopping' then return { FORBIDDEN, 0 } end
local h = header(ledger)
if not h then return { MISSING, 0 } end
local sum, attempting = {}, 0
load(ledger, 0, h.count - 1)
for position = 0, h.count - 1 do
  local status = status_of(position)
  if status == ATTEMPTING then
    attempting = attempting + 1
  elseif status == PENDING or status == DEFERRED then
    alter(position, read(position), sum, function(r)
      r.status, r.when = has(r.flags, RESENT) and IN_DOUBT or CANCELLED, now
    end)
  end
end
publish(ledger, KEYS[2], sum)
return { OK, attempting }
