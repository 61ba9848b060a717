-- Takes the lease on a chunk: free, standing still as observed, or held by a proven dead owner.
-- KEYS: ledger, counts   ARGV: owner, observed epoch, observed beat (-1: none observed), dead owner ('' or 8 bytes), now
-- Answers { OK, epoch, seq, ledger } or { LOST, epoch, beat, nil } or { MISSING, nil, nil, nil }: always four, a
-- tuple is read from an array of its own length only.
local ledger, counts = KEYS[1], KEYS[2]
local owner, dead, now = ARGV[1], ARGV[4], tonumber(ARGV[5])
local h = header(ledger)
if not h then return { MISSING, false, false, false } end
local still = h.epoch == tonumber(ARGV[2]) and h.beat == tonumber(ARGV[3])
if h.owner ~= FREE and h.owner ~= dead and not still then return { LOST, h.epoch, h.beat, false } end

redis.call('SETRANGE', ledger, 4, struct.pack('>I4I4I4c8', h.epoch + 1, 0, h.seq + 1, owner))
local raw, sum = redis.call('GET', ledger), {}
for position = 0, h.count - 1 do
  local at = HEADER + RECORD * position + 1
  if raw:byte(at) == ATTEMPTING then
    alter(ledger, position, unpack_record(raw, at), sum, function(r) lose(r, now) end)
  end
end
publish(counts, sum)
return { OK, h.epoch + 1, h.seq + 1, redis.call('GET', ledger) }
