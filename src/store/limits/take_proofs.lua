-- Counts messages of a principal, unless they would exceed what is allowed within a period.
--
-- The window slides, so no period of that length has more messages. The clock is that of Redis.
-- KEYS: the list of earlier requests, as "<ms> <messages>", the oldest first
-- ARGV: messages, most within the period, period in milliseconds
-- Answer: 0 if the messages are counted, else the milliseconds until they may be asked for again.
local wanted, most, period = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local used, over, live = wanted, 0, {}
for _, entry in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local at, messages = entry:match('^(%d+) (%d+)$')
  at, messages = tonumber(at), tonumber(messages)
  if at and at + period > now then
    used = used + messages
    live[#live + 1] = { at, messages }
  elseif #live == 0 then
    over = over + 1
  end
end
if over > 0 then redis.call('LTRIM', KEYS[1], over, -1) end
if used > most then
  for _, entry in ipairs(live) do
    used = used - entry[2]
    if used <= most then return math.max(1, entry[1] + period - now) end
  end
  return period
end
redis.call('RPUSH', KEYS[1], string.format('%d %d', now, wanted))
redis.call('PEXPIRE', KEYS[1], period)
return 0
