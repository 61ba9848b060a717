-- Excludes recipients after the preparation, before the holder claims anything of the chunk.
--
-- Only pending and deferred recipients are excluded, and only if no attempt may have been accepted.
-- The header notes that the chunk was checked. A repeated request changes nothing.
-- KEYS: ledger, live counters
-- ARGV: owner, epoch, sequence number, now, position (u16) and cause (u8) of each exclusion
-- Answer: { verdict, number of recipients that were excluded }.
local ledger, now, exclusions = KEYS[1], tonumber(ARGV[4]), ARGV[5]
local header = read_header(ledger)
local verdict, repeated = begin_batch(ledger, header, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if verdict ~= OK or repeated then return { verdict, 0 } end
local deltas, excluded = {}, 0
load_records(ledger, 0, header.count - 1)
for at = 1, #exclusions, 3 do
  local position, cause = unpack('>I2B', exclusions, at)
  local record = position < header.count and read_record(position)
  if record and (record.status == PENDING or record.status == DEFERRED)
    and not has(record.flags, RESENT) and not has(record.flags, ACCEPTED) then
    change_record(position, record, deltas, function()
      record.status, record.reason, record.when = EXCLUDED, cause, now
    end)
    excluded = excluded + 1
  end
end
write_back(ledger, KEYS[2], deltas)
redis.call('SETRANGE', ledger, 1, string.char(bor(header.mode, 2)))
return { OK, excluded }
