-- The holder lives: raises the beat, and notes in which run of Redis all that it wrote is there.
-- KEYS: ledger   ARGV: owner, epoch, sequence number, whether Redis may go back in time (0 or 1)
-- Answers OK, LOST, ROLLED_BACK or MISSING.
local h = header(KEYS[1])
local verdict = against(h, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if verdict ~= OK then return verdict end
redis.call('SETRANGE', KEYS[1], 8, pack('>I4', h.beat + 1))
if ARGV[4] == '1' then redis.call('SETRANGE', KEYS[1], 24, this_run()) end
return OK
