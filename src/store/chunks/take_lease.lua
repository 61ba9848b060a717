-- Takes the lease on a chunk that is free, whose beat stood still, or whose owner is proven dead.
--
-- Recipients that the predecessor was attempting become in doubt. If Redis may have lost writes of
-- the predecessor, all pending, attempting and deferred recipients become in doubt. This is so if
-- the predecessor is gone and its last beat was in another run of Redis. In an SMTP test nobody
-- becomes in doubt. A recipient whose earlier claim was accepted becomes sent.
-- KEYS: ledger, live counters
-- ARGV: 1 owner, 2 observed epoch, 3 observed beat (-1: none observed),
--       4 dead owner ('' or 8 bytes), 5 now, 6 whether Redis may roll back (0 or 1),
--       7 whether recipients in doubt are sent to again (0 or 1), 8 new sequence number
-- Answer: { OK, epoch, sequence number, ledger }, or { LOST, epoch, beat, nil },
--         or { MISSING, nil, nil, nil }. The caller reads a tuple, so the length is always four.
local ledger, counts = KEYS[1], KEYS[2]
local owner, dead_owner, now, seq = ARGV[1], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[8])
local header = read_header(ledger)
if not header then return { MISSING, false, false, false } end
local stood_still = header.epoch == tonumber(ARGV[2]) and header.beat == tonumber(ARGV[3])
if header.owner ~= NOBODY and header.owner ~= dead_owner and not stood_still then
  return { LOST, header.epoch, header.beat, false }
end

local may_roll_back = ARGV[6] == '1'
local run = (may_roll_back or header.run ~= NOBODY) and redis_run() or NOBODY
local forgotten = header.owner ~= NOBODY and header.run ~= NOBODY and header.run ~= run
redis.call('SETRANGE', ledger, 4,
  pack('>I4I4I4c8c8', header.epoch + 1, 0, seq, owner, may_roll_back and run or NOBODY))
local deltas = {}
load_records(ledger, 0, header.count - 1)
for position = 0, header.count - 1 do
  if forgotten then
    put_in_doubt(position, read_record(position), deltas, now, ARGV[7] == '1')
  elseif status_of(position) == ATTEMPTING then
    change_record(position, read_record(position), deltas, function(record)
      lose_claim(record, now)
    end)
  end
end
write_back(ledger, counts, deltas)
return { OK, header.epoch + 1, seq, redis.call('GET', ledger) }
