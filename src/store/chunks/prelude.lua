-- What every script of a ledger begins with. The layout is documented in domain/ledger.rs.
local HEADER, RECORD = 32, 16
local PENDING, ATTEMPTING, DEFERRED, SENT, FAILED, IN_DOUBT, CANCELLED, EXCLUDED = 0, 1, 2, 3, 4, 5, 6, 7
local RESENT, SETTLED, DUPLICATE, HARD, EXPIRED, ACCEPTED, BOUNCED = 1, 2, 4, 8, 16, 32, 64
local WORDS = { [0] = 'pending', 'attempting', 'deferred', 'sent', 'failed', 'in_doubt', 'cancelled', 'excluded' }
local NOT_DEFINED = 7 -- failure reason
local FREE = string.rep('\0', 8)
-- verdicts on the caller's lease and sequence number
local OK, LOST, FORBIDDEN, ROLLED_BACK, MISSING = 0, 1, 2, 3, 4

local pack, unpack, band, bor = struct.pack, struct.unpack, bit.band, bit.bor

local function has(flags, flag) return band(flags, flag) ~= 0 end

-- SMTP test mode, as the header says: no message is ever transferred, so that nothing can be in doubt.
local testing = false

local function header(ledger)
  local raw = redis.call('GETRANGE', ledger, 0, HEADER - 1)
  if #raw < HEADER then return nil end
  local mode, count, epoch, beat, seq, owner, run = unpack('>xBI2I4I4I4c8c8', raw)
  testing = band(mode, 1) == 1
  return { mode = mode, count = count, epoch = epoch, beat = beat, seq = seq, owner = owner, run = run }
end

local function unpack_record(raw, at)
  local status, attempts, reason, flags, epoch, n, when = unpack('>BBBBI4BI4', raw, at)
  return { status = status, attempts = attempts, reason = reason, flags = flags, epoch = epoch, n = n, when = when }
end

-- The records that a script works on are read at once and written back at its end, in runs: a command costs more than
-- the bytes of some records. Within a script nobody else writes.
local page, page_from, dirty = '', 0, {}

local function load(ledger, first, last)
  page_from = first
  page = redis.call('GETRANGE', ledger, HEADER + RECORD * first, HEADER + RECORD * (last + 1) - 1)
end

local function status_of(position) return page:byte(RECORD * (position - page_from) + 1) end

local function read(position)
  if dirty[position] then return unpack_record(dirty[position], 1) end
  return unpack_record(page, RECORD * (position - page_from) + 1)
end

-- The sender's bytes are 0..12; 13..15 belong to tracking and stay as they are.
local function as_written(position)
  local at = RECORD * (position - page_from) + 1
  if not dirty[position] then return page:sub(at, at + RECORD - 1) end
  return dirty[position] .. page:sub(at + 13, at + RECORD - 1)
end

-- Unchanged records between two that changed are written, too, if they are this few.
local BRIDGED = 1

local function flush(ledger)
  local positions = {}
  for position in pairs(dirty) do positions[#positions + 1] = position end
  table.sort(positions)
  local i = 1
  while i <= #positions do
    local from, run = positions[i], { as_written(positions[i]) }
    while positions[i + 1] and positions[i + 1] - positions[i] <= BRIDGED + 1 do
      for position = positions[i] + 1, positions[i + 1] do run[#run + 1] = as_written(position) end
      i = i + 1
    end
    redis.call('SETRANGE', ledger, HEADER + RECORD * from, table.concat(run))
    i = i + 1
  end
end

local function tally(sum, r, by)
  local word, flags = WORDS[r.status], r.flags
  sum[word] = (sum[word] or 0) + by
  if band(flags, RESENT + DUPLICATE + HARD) == 0 then return end
  if has(flags, RESENT) then sum.resent = (sum.resent or 0) + by end
  if has(flags, DUPLICATE) then sum.duplicates = (sum.duplicates or 0) + by end
  if r.status == FAILED and has(flags, HARD) then sum.hard = (sum.hard or 0) + by end
end

-- Counts a record out, lets `change` alter it, and counts it in; `publish` writes it.
local function alter(position, r, sum, change)
  tally(sum, r, -1)
  change(r)
  tally(sum, r, 1)
  dirty[position] = pack('>BBBBI4BI4', r.status, r.attempts, r.reason, r.flags, r.epoch, r.n, r.when)
end

local function publish(ledger, counts, sum)
  flush(ledger)
  for word, by in pairs(sum) do
    if by ~= 0 then redis.call('HINCRBY', counts, word, by) end
  end
end

-- An earlier claim was accepted: whatever becomes of the newest one, it was sent.
local function sent_before(r, now)
  r.status, r.reason, r.when = SENT, 0, now
end

-- The claim of a worker that is gone: nobody knows whether it was accepted, unless an earlier claim was.
local function lose(r, now)
  if has(r.flags, ACCEPTED) then
    sent_before(r, now)
    if not testing then r.flags = bor(r.flags, DUPLICATE) end
  else
    r.status, r.when = testing and DEFERRED or IN_DOUBT, now
  end
end

-- A roll-back may have undone whatever was written last: what is not settled may have been sent. What is in doubt and would
-- be sent again may have been sent again: not a third time.
local function doubt(position, r, sum, now, resends)
  if r.status == ATTEMPTING or r.status <= DEFERRED and not testing then
    alter(position, r, sum, function() lose(r, now) end)
  elseif r.status == IN_DOUBT and resends and not has(r.flags, RESENT) then
    alter(position, r, sum, function() r.flags = bor(r.flags, RESENT) end)
  end
end

-- Whoever reads a message has got it: who was in doubt was sent to.
local function prove(position, r, sum, now)
  alter(position, r, sum, function() r.status, r.reason, r.when, r.flags = SENT, 0, now, bor(r.flags, ACCEPTED) end)
end

-- Which run of Redis this is, in eight bytes: another one may have forgotten what this one acknowledged.
local function this_run()
  return string.sub(string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'), 1, 8)
end

-- What stands against a lease and the sequence number its holder expects: OK, LOST, MISSING, or ROLLED_BACK if the
-- ledger is older than what its holder has seen.
local function against(h, owner, epoch, seq)
  if not h then return MISSING end
  if h.epoch < epoch then return ROLLED_BACK end
  if h.owner ~= owner or h.epoch ~= epoch then return LOST end
  if h.seq ~= seq then return ROLLED_BACK end
  return OK
end

-- When a record may be claimed, nil if never; resend_after is nil under the policy hold.
local function claimable_at(r, resend_after)
  if r.status == PENDING then return 0 end
  if r.status == DEFERRED then return r.when end
  if r.status == IN_DOUBT and resend_after and not has(r.flags, RESENT) then return r.when + resend_after end
  return nil
end

-- Checks and raises the sequence number of the holder's group: OK, or what stands against it, and whether
-- this very group was applied before (its answer was lost on the way).
local function enter(ledger, h, owner, epoch, seq)
  local verdict = against(h, owner, epoch, seq)
  if verdict == ROLLED_BACK and h.epoch == epoch and h.seq == seq + 1 then return OK, true end
  if verdict ~= OK then return verdict, false end
  redis.call('SETRANGE', ledger, 12, pack('>I4', seq + 1))
  return OK, false
end
