-- The full logic of a batch: decides the reports and claims that the fast path has left.
--
-- Runs behind claim_and_record_fast.lua and the prelude, in the same script. KEYS, ARGV and the
-- answer are described there.
local FAST_PATH_RAN = count ~= nil -- It has checked the lease and raised the sequence number.
local GIVEN_BACK = 255
local verdict, repeated = OK, false
if not FAST_PATH_RAN then
  local header = read_header(ledger)
  if not header then return { MISSING, '', MISSING, '' } end
  verdict, repeated = begin_batch(ledger, header, owner, epoch, seq)
  count, redo = header.count, redo == 1
  load_records(ledger, first, last)
else
  smtp_test = band(byte(raw_header, 2), 1) == 1
  page, page_first, redo = page_after, first, false
end
if may_resend == 0 then resend_after = nil end
local deltas, effects, grants =
  { pending = -granted_count, attempting = granted_count - sent_count, sent = sent_count }, {}, {}

local function apply_outcome(record, outcome)
  record.status, record.reason, record.when = outcome.status, outcome.reason, outcome.when
  record.flags = bor(band(record.flags, RESENT + DUPLICATE + ACCEPTED), outcome.flags)
end

-- A report under the newest claim of the recipient.
-- Returns the effect byte, and a function that changes the record.
local function report_newest_claim(record, outcome)
  local unsettled = record.status == ATTEMPTING or record.status == IN_DOUBT
  if outcome.status == GIVEN_BACK then
    if record.status ~= ATTEMPTING then return 'x' end
    return 'a', function()
      record.attempts = math.max(record.attempts - 1, 0)
      record.status, record.when = record.attempts == 0 and PENDING or DEFERRED, now
      if has(record.flags, ACCEPTED) then sent_by_earlier_claim(record, now) end
    end
  end
  if outcome.status == SENT then
    if record.status == SENT and has(record.flags, ACCEPTED) then return 'r' end
    -- A bounce came first. It stays, and the acceptance is only noted.
    if record.status == FAILED and not has(record.flags, SETTLED) then
      if not has(record.flags, ACCEPTED) then
        return 'a', function() record.flags = bor(record.flags, ACCEPTED) end
      end
      if has(record.flags, DUPLICATE) or not has(record.flags, RESENT) then return 'r' end
      -- An earlier claim was or may have been accepted, too.
      return 'd', function() record.flags = bor(record.flags, DUPLICATE) end
    end
    local accepted_twice = unsettled and has(record.flags, ACCEPTED)
    return accepted_twice and 'd' or 'a', function()
      apply_outcome(record, outcome)
      record.flags = bor(record.flags, ACCEPTED)
      if accepted_twice then record.flags = bor(record.flags, DUPLICATE) end
    end
  end
  if not unsettled then return record.status == outcome.status and 'r' or 'x' end
  -- A late deferral leaves the recipient in doubt: its chunk may be closed and its delivery
  -- finished by now.
  if record.status == IN_DOUBT and outcome.status ~= FAILED then return 'x' end
  return 'a', function()
    if not has(record.flags, ACCEPTED) then return apply_outcome(record, outcome) end
    if outcome.status == IN_DOUBT then return lose_claim(record, outcome.when) end
    sent_by_earlier_claim(record, outcome.when)
  end
end

-- A report under an earlier claim. Only an acceptance matters. The first one is only noted while
-- the newer claim is attempting. Otherwise it decides, unless the message bounced, and its claim
-- number goes into the record. If the same report comes again, it does not count as a second
-- acceptance.
local function report_earlier_claim(record, outcome, report_epoch, report_n)
  if outcome.status ~= SENT then return 'x' end
  if has(record.flags, DUPLICATE)
    or record.status == ATTEMPTING and has(record.flags, ACCEPTED) then
    return 'r'
  end
  if has(record.flags, ACCEPTED) then
    return 'd', function() record.flags = bor(record.flags, DUPLICATE) end
  end
  local possibly_twice = record.status == IN_DOUBT
  return 'a', function()
    if record.status ~= ATTEMPTING then
      record.epoch, record.n = report_epoch, report_n
      if not has(record.flags, BOUNCED) then apply_outcome(record, outcome) end
    end
    record.flags = bor(record.flags, possibly_twice and ACCEPTED + DUPLICATE or ACCEPTED)
  end
end

local function apply_report(position, report_epoch, n, outcome, reply)
  if repeated then return 'r' end
  if verdict == ROLLED_BACK or position >= count then return 'x' end
  local record, effect, change = read_record(position), 'x', nil
  local is_newest = record.epoch == report_epoch and record.n == n
  -- The reported claim is newer than the claim in the record: Redis has forgotten it. Only an
  -- acceptance under the forgotten claim may end the attempt of the older claim.
  local is_forgotten = report_epoch > record.epoch or report_epoch == record.epoch and n > record.n
  if is_forgotten and record.status == ATTEMPTING and outcome.status ~= SENT then
    effect = 'x'
  elseif is_forgotten and has(record.flags, ACCEPTED)
    and (outcome.status == SENT or outcome.status == IN_DOUBT) then
    -- An earlier claim was accepted, and its report was replayed first. The message was or may
    -- have been accepted twice.
    effect = has(record.flags, DUPLICATE) and 'r' or outcome.status == SENT and 'd' or 'a'
    if effect ~= 'r' then
      change = function() record.flags = bor(record.flags, DUPLICATE, RESENT) end
    end
  elseif is_newest or is_forgotten then
    effect, change = report_newest_claim(record, outcome)
  else
    effect, change = report_earlier_claim(record, outcome, report_epoch, n)
  end
  if change then
    change_record(position, record, deltas, function()
      if is_forgotten then record.epoch, record.n = report_epoch, n end
      change()
    end)
    if reply then keep_reply(position, reply) end
  end
  return effect
end

local at = 1
while at < #reports do
  local report_epoch, n, status, reason, flags, when, length = unpack('>I4BBBBI4I2', reports, at)
  local outcome = { status = status, reason = reason, flags = flags, when = when }
  for p = at + 14, at + 12 + 2 * length, 2 do
    local number = #effects + 1
    if FAST_PATH_RAN and not left_reports[number] then
      effects[number] = 'a'
    else
      effects[number] =
        apply_report(unpack('>I2', reports, p), report_epoch, n, outcome, replies[number])
    end
  end
  at = at + 14 + 2 * length
end

local claim_verdict = verdict
if verdict == OK and not FAST_PATH_RAN and not redo and claims ~= ''
  and redis.call('HGET', KEYS[4], 'state') ~= 'in_progress' then
  claim_verdict = FORBIDDEN
end

local function grant_claim(position, n)
  if position >= count or not repeated and claim_verdict ~= OK then return '0' end
  local record = read_record(position)
  -- This batch ran before, and its answer was lost. A claim that it granted stays granted, even if
  -- the delivery was paused meanwhile.
  if repeated then
    return record.status == ATTEMPTING and record.epoch == epoch and record.n == n and '1' or '0'
  end
  local due = claimable_at(record, resend_after)
  if due and due <= now
    or redo and (record.status <= DEFERRED or record.status == IN_DOUBT) then
    change_record(position, record, deltas, function()
      if record.status == IN_DOUBT then record.flags = bor(record.flags, RESENT) end
      record.flags = band(record.flags, 255 - SETTLED)
      record.status, record.epoch, record.n, record.when = ATTEMPTING, epoch, n, now
      record.attempts = math.min(record.attempts + 1, 255)
    end)
    return '1'
  end
  if redo and has(record.flags, ACCEPTED) and not has(record.flags, RESENT)
    and (epoch > record.epoch or epoch == record.epoch and n > record.n) then
    -- The recipient was sent to again. The report on its earlier claim was replayed first.
    change_record(position, record, deltas, function() record.flags = bor(record.flags, RESENT) end)
  end
  return '0'
end

for at = 1, #claims, 5 do
  local position, length, n = unpack('>I2I2B', claims, at)
  if FAST_PATH_RAN and not left_claims[at] then
    grants[#grants + 1] = string.rep('1', length)
  else
    for p = position, position + length - 1 do grants[#grants + 1] = grant_claim(p, n) end
  end
end
write_back(ledger, counts, deltas)
return { verdict, table.concat(effects), claim_verdict, table.concat(grants) }
