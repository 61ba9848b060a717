-- Records a group of hits of one delivery: the log, and the records of their recipients.
-- KEYS: delivery, counts, tracking, agents, then the ledgers   ARGV: generation, now, hits in a block, most agents, most hits of a
-- recipient, prefix of the blocks, how many user agents, these, then of each ledger its hits, packed and in the order of their
-- positions: position (2), tracked bits (1), whether a human did it (1), the hit (36) with the number of its user agent among
-- these, from 0; 65535 if it had none
-- Answers how many were recorded: none if that generation was not released, or its tracking log was removed. What a recipient has
-- beyond the most is only counted (`beyond`): one link that is called for ever must not fill Redis.
-- This part takes nothing of the prelude, which costs more than some hits; proof.lua comes after it, where it is needed.
local call, byte, sub, format, bor, spread = redis.call, string.byte, string.sub, string.format, bit.bor, unpack
local HEAD, SIZE, TRACKED, DOUBTED = 32, 16, 13, 5 -- of a ledger
local PLACE, HIT, AGENT = 4, 36, 18 -- of what comes in
local block, most, most_hits, named = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
local planned, swept = spread(call('HMGET', KEYS[1], 'planned', 'swept_tracking'))
if planned ~= ARGV[1] or swept then return 0 end

local function short(number) return string.char(math.floor(number / 256), number % 256) end

local function short_at(bytes, at)
  local high, low = byte(bytes, at, at + 1)
  return 256 * high + low
end

-- of each agent its number in the delivery, as it is stored; a new one gets it with its first hit that is logged
local numbers = { [65535] = short(65535) }
local known = named > 0 and call('HMGET', KEYS[4], spread(ARGV, 8, 7 + named)) or {}

local function number_of(agent)
  if not numbers[agent] then
    local number = known[agent + 1]
    if not number then
      number = call('HLEN', KEYS[4])
      if number < most then call('HSET', KEYS[4], ARGV[8 + agent], number) else number = 65534 end
    end
    numbers[agent] = short(number)
  end
  return numbers[agent]
end

local log, n, beyond, proofs = {}, 0, 0, {} -- three pieces of each hit
for i = 8 + named, #ARGV do
  local ledger, hits = KEYS[i - 3 - named], ARGV[i]
  local first, last = short_at(hits, 1), short_at(hits, #hits + 1 - PLACE - HIT)
  local function load(from, to)
    first = from
    return call('GETRANGE', ledger, HEAD + SIZE * from, HEAD + SIZE * (to + 1) - 1)
  end
  -- a command costs as much as this many records more
  local sparse = last - first > 200 * #hits / (PLACE + HIT)
  local page = sparse and '' or load(first, last)
  local changes, m, current, had, many = {}, 0, nil, nil, nil
  for at = 1, #hits, PLACE + HIT do
    local position, new, human = short_at(hits, at), byte(hits, at + 2, at + 3)
    if sparse and position ~= current then page = load(position, position) end
    local record = SIZE * (position - first)
    if record + SIZE <= #page then
      if human == 1 and byte(page, record + 1) == DOUBTED then proofs[#proofs + 1] = { ledger, position } end
      if position ~= current then
        local high, low
        had, high, low = byte(page, record + TRACKED + 1, record + TRACKED + 3)
        current, many = position, 256 * high + low
      end
      local all = bor(had, new)
      if many < most_hits or all ~= had then
        -- the change of the same recipient before it is not needed any more
        if changes.of == position then m = m - 4 end
        had, many, changes.of = all, many + 1, position
        changes[m + 1], changes[m + 2] = 'SET', 'u24'
        changes[m + 3], changes[m + 4] = format('%d', 8 * (HEAD + SIZE * position + TRACKED)), format('%d', 65536 * all + many)
        m = m + 4
        local hit = at + PLACE
        log[n + 1] = sub(hits, hit, hit + AGENT - 1)
        log[n + 2] = number_of(short_at(hits, hit + AGENT))
        log[n + 3] = sub(hits, hit + AGENT + 2, hit + HIT - 1)
        n = n + 3
      else
        beyond = beyond + 1
      end
    end
  end
  if m > 0 then call('BITFIELD', ledger, spread(changes, 1, m)) end
end

local recorded = n / 3 + beyond
if beyond > 0 then call('HINCRBY', KEYS[3], 'beyond', beyond) end
if n > 0 then
  local logged = call('HINCRBY', KEYS[3], 'hits', n / 3) - n / 3
  local from = 1
  while from <= n do
    local pieces = math.min(3 * (block - logged % block), n + 1 - from)
    call('APPEND', ARGV[6] .. math.floor(logged / block), table.concat(log, '', from, from + pieces - 1))
    logged, from = logged + pieces / 3, from + pieces
  end
end
if #proofs == 0 then return recorded end
