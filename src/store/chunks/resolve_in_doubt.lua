-- A person settles recipients in doubt as sent, failed or resend. Nothing is released again in a stopped delivery.
-- KEYS: ledger, counts, open, delivery   ARGV: chunk, now, verdict (sent, failed, resend), positions packed as u16*, '' for all
-- Answers { verdict, how many were settled, their positions packed }.
local ledger, now, verdict, wanted = KEYS[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local h = header(ledger)
if not h then return { MISSING, 0, '' } end
if verdict == 'resend' then
  local state = redis.call('HGET', KEYS[4], 'state')
  if state == 'stopping' or state == 'stopped' then return { FORBIDDEN, 0, '' } end
end
local sum, settled, seen = {}, {}, {}
load(ledger, 0, h.count - 1)

local function settle(position)
  if seen[position] or position >= h.count or status_of(position) ~= IN_DOUBT then return end
  seen[position] = true
  alter(position, read(position), sum, function(r)
    r.flags = bor(r.flags, SETTLED)
    if verdict == 'resend' then
      r.status, r.flags = PENDING, bor(r.flags, RESENT)
    else
      if verdict == 'sent' then r.status, r.reason = SENT, 0 else r.status, r.reason = FAILED, NOT_DEFINED end
    end
    r.when = now
  end)
  settled[#settled + 1] = pack('>I2', position)
end

if wanted == '' then
  for position = 0, h.count - 1 do settle(position) end
else
  for at = 1, #wanted, 2 do settle((unpack('>I2', wanted, at))) end
end
publish(ledger, KEYS[2], sum)
if verdict == 'resend' and #settled > 0 then redis.call('ZADD', KEYS[3], 0, ARGV[1]) end
return { OK, #settled, table.concat(settled) }
