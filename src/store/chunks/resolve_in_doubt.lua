-- Settles recipients in doubt as a person decides: sent, failed, or to be sent to again.
--
-- A delivery that is stopping or stopped sends to nobody again.
-- KEYS: ledger, live counters, open chunks, delivery
-- ARGV: chunk, now, decision (sent, failed, resend),
--       positions, each as u16 ('' for the whole chunk)
-- Answer: { verdict, number of settled recipients, their positions, each as u16 }.
local ledger, now, resolution, positions = KEYS[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local header = read_header(ledger)
if not header then return { MISSING, 0, '' } end
if resolution == 'resend' then
  local state = redis.call('HGET', KEYS[4], 'state')
  if state == 'stopping' or state == 'stopped' then return { FORBIDDEN, 0, '' } end
end
local deltas, resolved, seen = {}, {}, {}
load_records(ledger, 0, header.count - 1)

local function resolve(position)
  if seen[position] or position >= header.count or status_of(position) ~= IN_DOUBT then return end
  seen[position] = true
  change_record(position, read_record(position), deltas, function(record)
    record.flags = bor(record.flags, SETTLED)
    if resolution == 'resend' then
      record.status, record.flags = PENDING, bor(record.flags, RESENT)
    else
      if resolution == 'sent' then
        record.status, record.reason = SENT, 0
      else
        record.status, record.reason = FAILED, NOT_DEFINED
      end
    end
    record.when = now
  end)
  resolved[#resolved + 1] = pack('>I2', position)
end

if positions == '' then
  for position = 0, header.count - 1 do resolve(position) end
else
  for at = 1, #positions, 2 do resolve((unpack('>I2', positions, at))) end
end
write_back(ledger, KEYS[2], deltas)
if resolution == 'resend' and #resolved > 0 then redis.call('ZADD', KEYS[3], 0, ARGV[1]) end
return { OK, #resolved, table.concat(resolved) }
