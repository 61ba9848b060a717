-- Redis went back in time under the holder of a chunk, further than the holder remembers: what it holds as not sent may have
-- been sent. All of it is in doubt, and whoever holds the chunk is fenced out.
-- KEYS: ledger, counts, open, offered   ARGV: chunk, now, resend after seconds (-1: hold), the holder's epoch
-- Answers { verdict, how many are in doubt now }.
local ledger, now, resend_after = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local h = header(ledger)
if not h then return { MISSING, 0 } end
local sum, doubted, again = {}, 0, false
load(ledger, 0, h.count - 1)
for position = 0, h.count - 1 do
  local r = read(position)
  if r.status <= DEFERRED and not testing then doubted = doubted + 1 end
  doubt(position, r, sum, now, resend_after >= 0)
  again = again or r.status <= DEFERRED or r.status == IN_DOUBT and not has(r.flags, RESENT)
end
publish(ledger, KEYS[2], sum)
redis.call('SETRANGE', ledger, 4, pack('>I4I4I4c8', math.max(h.epoch, tonumber(ARGV[4])) + 1, 0, h.seq + 1, FREE))
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if testing then resend_after = 0 end
if resend_after >= 0 and again then redis.call('ZADD', KEYS[3], now + resend_after, ARGV[1]) end
return { OK, doubted }
