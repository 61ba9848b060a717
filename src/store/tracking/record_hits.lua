-- Records a batch of hits of one delivery in the tracking log and in the records of the recipients.
--
-- KEYS: delivery, live counters, tracking counters, user agents, then the ledgers
-- ARGV: 1 generation of the plan, 2 now, 3 hits per block of the log, 4 maximum of user agents,
--       5 maximum of logged hits per recipient, 6 key prefix of the blocks,
--       7 number of user agents in the batch, then these user agents,
--       then for each ledger its hits in the order of their positions: position u16,
--       tracked bits u8, whether a human did it u8, hit (36 bytes).
--       A hit names its user agent by the index in this batch, from 0. 65535 means none.
-- Answer: the number of recorded hits. It is 0 if the generation is not the current plan, or if
--         the tracking log was removed.
--
-- Hits beyond the maximum of a recipient are only counted (`beyond`), unless their kind is new.
-- A link that is requested for ever must not fill Redis.
-- This part uses nothing of the prelude, because to run the prelude costs more than some hits do.
-- The prelude and hit_resolves_in_doubt.lua follow in the same script. They run only if a hit
-- proves a delivery.
local call, byte, sub, format = redis.call, string.byte, string.sub, string.format
local bor, unpack_table = bit.bor, unpack
local HEADER_BYTES, RECORD_BYTES, TRACKED_OFFSET, STATUS_IN_DOUBT = 32, 16, 13, 5 -- of a ledger
local PREFIX_BYTES, HIT_BYTES, AGENT_OFFSET = 4, 36, 18 -- of a hit in ARGV
local hits_per_block, max_agents = tonumber(ARGV[3]), tonumber(ARGV[4])
local max_hits, agent_count = tonumber(ARGV[5]), tonumber(ARGV[7])
local generation, log_removed = unpack_table(call('HMGET', KEYS[1], 'planned', 'swept_tracking'))
if generation ~= ARGV[1] or log_removed then return 0 end

local function u16(number) return string.char(math.floor(number / 256), number % 256) end

local function u16_at(bytes, at)
  local high, low = byte(bytes, at, at + 1)
  return 256 * high + low
end

-- The number of each user agent in the delivery, in two bytes. A new user agent gets its number
-- with its first logged hit.
local numbers = { [65535] = u16(65535) }
local known_numbers = agent_count > 0
  and call('HMGET', KEYS[4], unpack_table(ARGV, 8, 7 + agent_count)) or {}

local function number_of(agent)
  if not numbers[agent] then
    local number = known_numbers[agent + 1]
    if not number then
      number = call('HLEN', KEYS[4])
      if number < max_agents then
        call('HSET', KEYS[4], ARGV[8 + agent], number)
      else
        number = 65534
      end
    end
    numbers[agent] = u16(number)
  end
  return numbers[agent]
end

local log, piece_count, beyond, proofs = {}, 0, 0, {} -- The log holds three pieces of each hit.
for i = 8 + agent_count, #ARGV do
  local ledger, hits = KEYS[i - 3 - agent_count], ARGV[i]
  local first, last = u16_at(hits, 1), u16_at(hits, #hits + 1 - PREFIX_BYTES - HIT_BYTES)
  local function load_page(from, to)
    first = from
    return call('GETRANGE', ledger,
      HEADER_BYTES + RECORD_BYTES * from, HEADER_BYTES + RECORD_BYTES * (to + 1) - 1)
  end
  -- One command costs as much as reading 200 more records.
  local sparse = last - first > 200 * #hits / (PREFIX_BYTES + HIT_BYTES)
  local page = sparse and '' or load_page(first, last)
  local changes, change_size, current, old_bits, logged_hits = {}, 0, nil, nil, nil
  for at = 1, #hits, PREFIX_BYTES + HIT_BYTES do
    local position, new_bits, is_human = u16_at(hits, at), byte(hits, at + 2, at + 3)
    if sparse and position ~= current then page = load_page(position, position) end
    local record_at = RECORD_BYTES * (position - first)
    if record_at + RECORD_BYTES <= #page then
      if is_human == 1 and byte(page, record_at + 1) == STATUS_IN_DOUBT then
        proofs[#proofs + 1] = { ledger, position }
      end
      if position ~= current then
        local high, low
        old_bits, high, low =
          byte(page, record_at + TRACKED_OFFSET + 1, record_at + TRACKED_OFFSET + 3)
        current, logged_hits = position, 256 * high + low
      end
      local all_bits = bor(old_bits, new_bits)
      if logged_hits < max_hits or all_bits ~= old_bits then
        -- This change replaces the previous change of the same recipient.
        if changes.of == position then change_size = change_size - 4 end
        old_bits, logged_hits, changes.of = all_bits, logged_hits + 1, position
        changes[change_size + 1], changes[change_size + 2] = 'SET', 'u24'
        changes[change_size + 3], changes[change_size + 4] =
          format('%d', 8 * (HEADER_BYTES + RECORD_BYTES * position + TRACKED_OFFSET)),
          format('%d', 65536 * all_bits + logged_hits)
        change_size = change_size + 4
        local hit_at = at + PREFIX_BYTES
        log[piece_count + 1] = sub(hits, hit_at, hit_at + AGENT_OFFSET - 1)
        log[piece_count + 2] = number_of(u16_at(hits, hit_at + AGENT_OFFSET))
        log[piece_count + 3] = sub(hits, hit_at + AGENT_OFFSET + 2, hit_at + HIT_BYTES - 1)
        piece_count = piece_count + 3
      else
        beyond = beyond + 1
      end
    end
  end
  if change_size > 0 then call('BITFIELD', ledger, unpack_table(changes, 1, change_size)) end
end

local recorded = piece_count / 3 + beyond
if beyond > 0 then call('HINCRBY', KEYS[3], 'beyond', beyond) end
if piece_count > 0 then
  local logged = call('HINCRBY', KEYS[3], 'hits', piece_count / 3) - piece_count / 3
  local from = 1
  while from <= piece_count do
    local pieces =
      math.min(3 * (hits_per_block - logged % hits_per_block), piece_count + 1 - from)
    call('APPEND', ARGV[6] .. math.floor(logged / hits_per_block),
      table.concat(log, '', from, from + pieces - 1))
    logged, from = logged + pieces / 3, from + pieces
  end
end
if #proofs == 0 then return recorded end
