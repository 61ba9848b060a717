-- Raises the beat of a chunk: its holder lives.
--
-- If Redis may roll back, the header also notes the current run of Redis. This run has everything
-- that the holder wrote.
-- KEYS: ledger
-- ARGV: owner, epoch, sequence number, whether Redis may roll back (0 or 1)
-- Answer: OK, LOST, ROLLED_BACK or MISSING.
local header = read_header(KEYS[1])
local verdict = check_lease(header, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if verdict ~= OK then return verdict end
redis.call('SETRANGE', KEYS[1], 8, pack('>I4', header.beat + 1))
if ARGV[4] == '1' then redis.call('SETRANGE', KEYS[1], 24, redis_run()) end
return OK
