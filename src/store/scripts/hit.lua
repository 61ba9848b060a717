-- Records a group of hits of one delivery: the log, and the records of their recipients.
-- KEYS: delivery, counts, tracking, agents, then the ledgers   ARGV: generation, now, hits in a block, most agents, most hits of a
-- recipient, prefix of the blocks, then of each hit its bytes, its user agent, and packed: number of its ledger from 0 (2), position (2), tracked bits (1),
-- whether a human did it (1)
-- Answers how many were recorded: none if that generation was not released, or its tracking log was removed. What a recipient has
-- beyond the most is only counted (`beyond`): one link that is called for ever must not fill Redis.
local delivery, counts, tracking, agents = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, block, most, most_hits = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if redis.call('HGET', delivery, 'planned') ~= ARGV[1] or redis.call('EXISTS', KEYS[5]) == 0 then return 0 end
if redis.call('HEXISTS', delivery, 'swept_tracking') == 1 then return 0 end
local n = tonumber(redis.call('HGET', tracking, 'hits') or 0)
local numbers, pieces, sum, recorded, beyond = {}, {}, {}, 0, 0

local function number_of(agent)
  if agent == '' then return 65535 end
  if numbers[agent] then return numbers[agent] end
  local number = tonumber(redis.call('HGET', agents, agent))
  if not number then
    number = redis.call('HLEN', agents)
    if number >= most then
      number = 65534
    else
      redis.call('HSET', agents, agent, number)
    end
  end
  numbers[agent] = number
  return number
end

for i = 7, #ARGV, 3 do
  local ledger, position, bits, human = unpack('>I2I2BB', ARGV[i + 2])
  ledger = KEYS[5 + ledger]
  load(ledger, position, position)
  if #page == RECORD then
    local r = read(position)
    if human == 1 and r.status == IN_DOUBT then
      prove(position, r, sum, now)
      flush(ledger)
      dirty = {}
    end
    local tracked, hits = unpack('>BI2', page, 14)
    local all = bor(tracked, bits)
    if hits < most_hits or all ~= tracked then
      redis.call('SETRANGE', ledger, HEADER + RECORD * position + 13, pack('>BI2', all, hits + 1))
      local at = math.floor(n / block)
      pieces[at] = (pieces[at] or '') .. ARGV[i]:sub(1, 18) .. pack('>I2', number_of(ARGV[i + 1])) .. ARGV[i]:sub(21)
      n = n + 1
    else
      beyond = beyond + 1
    end
    recorded = recorded + 1
  end
end
for at, bytes in pairs(pieces) do redis.call('APPEND', ARGV[6] .. at, bytes) end
redis.call('HSET', tracking, 'hits', n)
if beyond > 0 then redis.call('HINCRBY', tracking, 'beyond', beyond) end
publish(KEYS[5], counts, sum)
return recorded
