-- Gives the lease back and says in the sets of the delivery when the chunk wants attention again.
-- A chunk that was set aside wants none, and is not aside any more once nothing is left to do.
-- KEYS: ledger, counts, open, offered, aside   ARGV: owner, epoch, sequence number, chunk, now, resend after seconds (-1: hold)
-- Answers { verdict, when it wants attention in Unix seconds, -1 for never }.
local ledger, now = KEYS[1], tonumber(ARGV[5])
local resend_after = tonumber(ARGV[6])
if resend_after < 0 then resend_after = nil end
local h = header(ledger)
local verdict = against(h, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if verdict ~= OK then return { verdict, -1 } end

local sum, due = {}, nil
load(ledger, 0, h.count - 1)
for position = 0, h.count - 1 do
  local status = status_of(position)
  if status <= DEFERRED or status == IN_DOUBT then
    local r = read(position)
    if status == ATTEMPTING then alter(position, r, sum, function() lose(r, now) end) end
    local wants = claimable_at(r, resend_after)
    if wants and (not due or wants < due) then due = wants end
  end
end
publish(ledger, KEYS[2], sum)
redis.call('SETRANGE', ledger, 12, pack('>I4c8', h.seq + 1, FREE))
redis.call('ZREM', KEYS[4], ARGV[4])
if not due then redis.call('SREM', KEYS[5], ARGV[4]) end
if due and redis.call('SISMEMBER', KEYS[5], ARGV[4]) == 0 then
  redis.call('ZADD', KEYS[3], due, ARGV[4])
else
  redis.call('ZREM', KEYS[3], ARGV[4])
end
return { OK, due or -1 }
