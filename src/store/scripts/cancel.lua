-- A stopped delivery: what was not begun is cancelled; what was to be sent again, and may have been accepted, is in doubt.
-- Needs no lease: claims check the state themselves.
-- KEYS: ledger, counts, delivery   ARGV: now
-- Answers { verdict, how many are still being attempted }.
local ledger, now = KEYS[1], tonumber(ARGV[1])
if redis.call('HGET', KEYS[3], 'state') ~= 'stopping' then return { FORBIDDEN, 0 } end
local h = header(ledger)
if not h then return { MISSING, 0 } end
local raw, sum, attempting = redis.call('GET', ledger), {}, 0
for position = 0, h.count - 1 do
  local at = HEADER + RECORD * position + 1
  local status = raw:byte(at)
  if status == ATTEMPTING then
    attempting = attempting + 1
  elseif status == PENDING or status == DEFERRED then
    alter(ledger, position, unpack_record(raw, at), sum, function(r)
      r.status, r.when = has(r.flags, RESENT) and IN_DOUBT or CANCELLED, now
    end)
  end
end
publish(KEYS[2], sum)
return { OK, attempting }
