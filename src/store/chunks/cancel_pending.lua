-- Cancels the recipients of a chunk that are pending or deferred, while the delivery is stopping.
--
-- A recipient with the flag RESENT becomes in doubt again, because an earlier attempt may have been
-- accepted. The script needs no lease, because each claim checks the state of the delivery itself.
-- KEYS: ledger, live counters, delivery
-- ARGV: now
-- Answer: { verdict, number of recipients that are still attempting }.
local ledger, now = KEYS[1], tonumber(ARGV[1])
if redis.call('HGET', KEYS[3], 'state') ~= 'stopping' then return { FORBIDDEN, 0 } end
local header = read_header(ledger)
if not header then return { MISSING, 0 } end
local deltas, attempting = {}, 0
load_records(ledger, 0, header.count - 1)
for position = 0, header.count - 1 do
  local status = status_of(position)
  if status == ATTEMPTING then
    attempting = attempting + 1
  elseif status == PENDING or status == DEFERRED then
    change_record(position, read_record(position), deltas, function(record)
      record.status, record.when = has(record.flags, RESENT) and IN_DOUBT or CANCELLED, now
    end)
  end
end
write_back(ledger, KEYS[2], deltas)
return { OK, attempting }
