-- Gives the lease of a chunk back, and notes when the chunk needs a job again.
--
-- A recipient that is still attempting is treated as if its worker were gone.
-- A poisoned chunk gets no job. It is no longer poisoned once it has nothing left to send.
-- KEYS: ledger, live counters, open chunks, offered chunks, poisoned chunks
-- ARGV: owner, epoch, sequence number, chunk, now,
--       seconds until a recipient in doubt is sent to again (-1: never)
-- Answer: { verdict, when the chunk needs a job in Unix seconds }. The second number is -1 for
--         never, and if the verdict is not OK.
local ledger, now = KEYS[1], tonumber(ARGV[5])
local resend_after = tonumber(ARGV[6])
if resend_after < 0 then resend_after = nil end
local header = read_header(ledger)
local verdict = check_lease(header, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if verdict ~= OK then return { verdict, -1 } end

local deltas, due = {}, nil
load_records(ledger, 0, header.count - 1)
for position = 0, header.count - 1 do
  local status = status_of(position)
  if status <= DEFERRED or status == IN_DOUBT then
    local record = read_record(position)
    if status == ATTEMPTING then
      change_record(position, record, deltas, function() lose_claim(record, now) end)
    end
    local ready_at = claimable_at(record, resend_after)
    if ready_at and (not due or ready_at < due) then due = ready_at end
  end
end
write_back(ledger, KEYS[2], deltas)
redis.call('SETRANGE', ledger, 12, pack('>I4c8', header.seq + 1, NOBODY))
redis.call('ZREM', KEYS[4], ARGV[4])
if not due then redis.call('SREM', KEYS[5], ARGV[4]) end
if due and redis.call('SISMEMBER', KEYS[5], ARGV[4]) == 0 then
  redis.call('ZADD', KEYS[3], due, ARGV[4])
else
  redis.call('ZREM', KEYS[3], ARGV[4])
end
return { OK, due or -1 }
