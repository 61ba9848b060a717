-- Puts the pending, attempting and deferred recipients of a chunk in doubt after a roll-back.
--
-- The holder calls this if Redis lost more batches than the holder remembers. The release of a held
-- store calls this, too. Each of these recipients may have been sent to. In an SMTP test nobody
-- becomes in doubt. A recipient whose earlier claim was accepted becomes sent. The new epoch fences
-- every holder of the chunk.
-- KEYS: ledger, live counters, open chunks, offered chunks
-- ARGV: chunk, now, seconds until a recipient in doubt is sent to again (-1: never),
--       epoch of the holder
-- Answer: { verdict, number of these recipients (0 in an SMTP test) }.
local ledger, now, resend_after = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local header = read_header(ledger)
if not header then return { MISSING, 0 } end
local deltas, in_doubt, can_be_sent = {}, 0, false
load_records(ledger, 0, header.count - 1)
for position = 0, header.count - 1 do
  local record = read_record(position)
  if record.status <= DEFERRED and not smtp_test then in_doubt = in_doubt + 1 end
  put_in_doubt(position, record, deltas, now, resend_after >= 0)
  can_be_sent = can_be_sent or record.status <= DEFERRED
    or record.status == IN_DOUBT and not has(record.flags, RESENT)
end
write_back(ledger, KEYS[2], deltas)
redis.call('SETRANGE', ledger, 4,
  pack('>I4I4I4c8', math.max(header.epoch, tonumber(ARGV[4])) + 1, 0, header.seq + 1, NOBODY))
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if smtp_test then resend_after = 0 end
if resend_after >= 0 and can_be_sent then
  redis.call('ZADD', KEYS[3], now + resend_after, ARGV[1])
end
return { OK, in_doubt }
