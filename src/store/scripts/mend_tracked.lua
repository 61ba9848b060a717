-- Sets the tracked bits of records whose hits are those that were counted.
-- KEYS: ledger   ARGV: of each where its bits stand, hits, bits
for i = 1, #ARGV, 3 do
  local at = tonumber(ARGV[i])
  local raw = redis.call('GETRANGE', KEYS[1], at + 1, at + 2)
  if #raw == 2 and struct.unpack('>I2', raw) == tonumber(ARGV[i + 1]) then redis.call('SETRANGE', KEYS[1], at, ARGV[i + 2]) end
end
