-- Functions that all scripts over ledgers share.
--
-- The layout of a ledger is in domain/ledger/format.rs.
-- This file stands before the text of such a script. Only claim_and_record_fast.lua and
-- record_hits.lua come earlier.
-- It has no KEYS, no ARGV and no answer.
local HEADER, RECORD = 32, 16
local PENDING, ATTEMPTING, DEFERRED, SENT, FAILED, IN_DOUBT, CANCELLED, EXCLUDED =
  0, 1, 2, 3, 4, 5, 6, 7
local RESENT, SETTLED, DUPLICATE, HARD, EXPIRED, ACCEPTED, BOUNCED = 1, 2, 4, 8, 16, 32, 64
local STATUS_WORDS = {
  [0] = 'pending', 'attempting', 'deferred', 'sent', 'failed', 'in_doubt', 'cancelled', 'excluded',
}
local NOT_DEFINED = 7 -- failure reason
local NOBODY = string.rep('\0', 8)
-- Verdicts on the lease and the sequence number of the caller.
local OK, LOST, FORBIDDEN, ROLLED_BACK, MISSING = 0, 1, 2, 3, 4

local pack, unpack, band, bor = struct.pack, struct.unpack, bit.band, bit.bor

local function has(flags, flag) return band(flags, flag) ~= 0 end

-- SMTP test mode, as the header says. No message is ever transferred, so nothing can be in doubt.
local smtp_test = false

local function read_header(ledger)
  local raw = redis.call('GETRANGE', ledger, 0, HEADER - 1)
  if #raw < HEADER then return nil end
  local mode, count, epoch, beat, seq, owner, run = unpack('>xBI2I4I4I4c8c8', raw)
  smtp_test = band(mode, 1) == 1
  return {
    mode = mode, count = count, epoch = epoch, beat = beat, seq = seq, owner = owner, run = run,
  }
end

local function unpack_record(raw, at)
  local status, attempts, reason, flags, epoch, n, when = unpack('>BBBBI4BI4', raw, at)
  return {
    status = status, attempts = attempts, reason = reason, flags = flags,
    epoch = epoch, n = n, when = when,
  }
end

-- A script reads all its records at once, and writes the changed ones at its end in ranges.
-- One more command costs more than to read or write some records that did not change.
-- Nobody else writes while a script runs.
local page, page_first, changed = '', 0, {}

local function load_records(ledger, first, last)
  page_first = first
  page = redis.call('GETRANGE', ledger, HEADER + RECORD * first, HEADER + RECORD * (last + 1) - 1)
end

local function status_of(position) return page:byte(RECORD * (position - page_first) + 1) end

local function read_record(position)
  if changed[position] then return unpack_record(changed[position], 1) end
  return unpack_record(page, RECORD * (position - page_first) + 1)
end

-- Bytes 0 to 12 belong to sending. Bytes 13 to 15 belong to tracking and stay as they are.
local function stored_record(position)
  local at = RECORD * (position - page_first) + 1
  if not changed[position] then return page:sub(at, at + RECORD - 1) end
  return changed[position] .. page:sub(at + 13, at + RECORD - 1)
end

-- If at most this many unchanged records lie between two changed ones, one range covers all.
local MAX_GAP = 1

local function write_changed(ledger)
  local positions = {}
  for position in pairs(changed) do positions[#positions + 1] = position end
  table.sort(positions)
  local i = 1
  while i <= #positions do
    local from, range = positions[i], { stored_record(positions[i]) }
    while positions[i + 1] and positions[i + 1] - positions[i] <= MAX_GAP + 1 do
      for position = positions[i] + 1, positions[i + 1] do
        range[#range + 1] = stored_record(position)
      end
      i = i + 1
    end
    redis.call('SETRANGE', ledger, HEADER + RECORD * from, table.concat(range))
    i = i + 1
  end
end

-- Adds `step` to the deltas of all live counters that count this record.
local function count_record(deltas, record, step)
  local word, flags = STATUS_WORDS[record.status], record.flags
  deltas[word] = (deltas[word] or 0) + step
  if band(flags, RESENT + DUPLICATE + HARD) == 0 then return end
  if has(flags, RESENT) then deltas.resent = (deltas.resent or 0) + step end
  if has(flags, DUPLICATE) then deltas.duplicates = (deltas.duplicates or 0) + step end
  if record.status == FAILED and has(flags, HARD) then deltas.hard = (deltas.hard or 0) + step end
end

-- Lets `change` change a record and keeps the counter deltas right. `write_back` writes both.
local function change_record(position, record, deltas, change)
  count_record(deltas, record, -1)
  change(record)
  count_record(deltas, record, 1)
  changed[position] = pack('>BBBBI4BI4', record.status, record.attempts, record.reason,
    record.flags, record.epoch, record.n, record.when)
end

-- Writes the changed records and the live counters.
local function write_back(ledger, counts, deltas)
  write_changed(ledger)
  for word, step in pairs(deltas) do
    if step ~= 0 then redis.call('HINCRBY', counts, word, step) end
  end
end

-- An earlier claim was accepted, so the recipient is sent. The newest claim cannot change that.
local function sent_by_earlier_claim(record, now)
  record.status, record.reason, record.when = SENT, 0, now
end

-- The worker of a claim is gone, and nobody knows whether the message was accepted.
-- If an earlier claim was accepted, the recipient is sent, perhaps twice. Otherwise it is in doubt,
-- or deferred in an SMTP test.
local function lose_claim(record, now)
  if has(record.flags, ACCEPTED) then
    sent_by_earlier_claim(record, now)
    if not smtp_test then record.flags = bor(record.flags, DUPLICATE) end
  else
    record.status, record.when = smtp_test and DEFERRED or IN_DOUBT, now
  end
end

-- A roll-back may have undone the newest writes.
-- So a pending, attempting or deferred recipient may have been sent to.
-- A recipient in doubt may have been sent to again. RESENT prevents a third time.
local function put_in_doubt(position, record, deltas, now, may_resend)
  if record.status == ATTEMPTING or record.status <= DEFERRED and not smtp_test then
    change_record(position, record, deltas, function() lose_claim(record, now) end)
  elseif record.status == IN_DOUBT and may_resend and not has(record.flags, RESENT) then
    change_record(position, record, deltas, function() record.flags = bor(record.flags, RESENT) end)
  end
end

-- A human hit proves that the message was delivered: the recipient in doubt becomes sent.
local function prove_delivery(position, record, deltas, now)
  change_record(position, record, deltas, function()
    record.status, record.reason, record.when, record.flags =
      SENT, 0, now, bor(record.flags, ACCEPTED)
  end)
end

-- Names the current run of Redis in eight bytes. A new run may have lost acknowledged writes.
local function redis_run()
  return string.sub(string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'), 1, 8)
end

-- Compares owner, epoch and sequence number of the caller with the header.
-- Returns a verdict. ROLLED_BACK means that the ledger is older than the caller has seen.
local function check_lease(header, owner, epoch, seq)
  if not header then return MISSING end
  if header.epoch < epoch then return ROLLED_BACK end
  if header.owner ~= owner or header.epoch ~= epoch then return LOST end
  if header.seq ~= seq then return ROLLED_BACK end
  return OK
end

-- Returns the first instant at which a record may be claimed, or nil for never.
-- `resend_after` is nil if recipients in doubt are not sent to again.
local function claimable_at(record, resend_after)
  if record.status == PENDING then return 0 end
  if record.status == DEFERRED then return record.when end
  if record.status == IN_DOUBT and resend_after and not has(record.flags, RESENT) then
    return record.when + resend_after
  end
  return nil
end

-- Checks the lease and raises the sequence number for a batch of the holder.
-- Returns the verdict, and whether this very batch was applied before. In that case its answer was
-- lost, and the sequence number in the header is one ahead.
local function begin_batch(ledger, header, owner, epoch, seq)
  local verdict = check_lease(header, owner, epoch, seq)
  if verdict == ROLLED_BACK and header.epoch == epoch and header.seq == seq + 1 then
    return OK, true
  end
  if verdict ~= OK then return verdict, false end
  redis.call('SETRANGE', ledger, 12, pack('>I4', seq + 1))
  return OK, false
end
