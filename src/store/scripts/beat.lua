-- The holder lives: raises the beat.
-- KEYS: ledger   ARGV: owner, epoch
-- Answers OK, LOST or MISSING.
local h = header(KEYS[1])
if not h then return MISSING end
if h.owner ~= ARGV[1] or h.epoch ~= tonumber(ARGV[2]) then return LOST end
redis.call('SETRANGE', KEYS[1], 8, struct.pack('>I4', h.beat + 1))
return OK
