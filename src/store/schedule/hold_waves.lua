-- Holds the due waves of a delivery, because they may have been sent in the time that the store
-- lacks.
--
-- Waves of a delivery that has not started are held even if they are released or open: no ledger
-- says who was sent to.
-- KEYS: table of waves
-- ARGV: now, whether the delivery has started (0 or 1)
-- Answer: number of waves that are held now and were not before.
local WAVE, WAITING, RELEASED, OPEN, HELD = 16, 0, 1, 2, 3
local now, started = tonumber(ARGV[1]), ARGV[2] == '1'
local table_bytes = redis.call('GET', KEYS[1]) or ''
local held = 0
for at = 1, #table_bytes, WAVE do
  local due, _, recipients, state = struct.unpack('>I4I4I4B', table_bytes, at)
  local is_released = state == RELEASED or state == OPEN
  if state == WAITING and due <= now or is_released and not started then
    redis.call('SETRANGE', KEYS[1], at + 3, struct.pack('>I4I4B', 0, recipients, HELD))
    held = held + 1
  end
end
return held
