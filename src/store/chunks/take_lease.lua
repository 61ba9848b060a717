-- Takes the lease on a chunk: free, standing still as observed, or held by a proven dead owner.
-- What the holder was attempting is in doubt. If it may have written more than Redis remembers - it is gone, and Redis was
-- started anew or replaced since it was last seen to write - all that is not settled is in doubt.
-- KEYS: ledger, counts   ARGV: owner, observed epoch, observed beat (-1: none observed), dead owner ('' or 8 bytes), now,
--       whether Redis may go back in time (0 or 1), whether those in doubt are sent again (0 or 1),
--       the new sequence number
-- Answers { OK, epoch, seq, ledger } or { LOST, epoch, beat, nil } or { MISSING, nil, nil, nil }: always four, a
-- tuple is read from an array of its own length only.
local ledger, counts = KEYS[1], KEYS[2]
local owner, dead, now, seq = ARGV[1], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[8])
local h = header(ledger)
if not h then return { MISSING, false, false, false } end
local still = h.epoch == tonumber(ARGV[2]) and h.beat == tonumber(ARGV[3])
if h.owner ~= FREE and h.owner ~= dead and not still then return { LOST, h.epoch, h.beat, false } end

local may_go_back = ARGV[6] == '1'
local run = (may_go_back or h.run ~= FREE) and this_run() or FREE
local forgotten = h.owner ~= FREE and h.run ~= FREE and h.run ~= run
redis.call('SETRANGE', ledger, 4,
  pack('>I4I4I4c8c8', h.epoch + 1, 0, seq, owner, may_go_back and run or FREE))
local sum = {}
load(ledger, 0, h.count - 1)
for position = 0, h.count - 1 do
  if forgotten then
    doubt(position, read(position), sum, now, ARGV[7] == '1')
  elseif status_of(position) == ATTEMPTING then
    alter(position, read(position), sum, function(r) lose(r, now) end)
  end
end
publish(ledger, counts, sum)
return { OK, h.epoch + 1, seq, redis.call('GET', ledger) }
