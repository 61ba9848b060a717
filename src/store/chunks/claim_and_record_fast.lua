-- Writes a batch of the holder: records the reports on earlier claims, then grants new claims.
--
-- A report is compared with the claim number, not with the lease: a late report counts, too.
-- A claim needs the lease, the sequence number, and a delivery in progress. If the batch is done
-- again, the state of the delivery does not matter.
-- KEYS: ledger, live counters, replies, delivery
-- ARGV: 1 terms: epoch u32, sequence number u32, owner (8 bytes), now u32,
--         whether recipients in doubt are sent to again u8, after how many seconds u32,
--         whether the batch is done again because Redis has forgotten it u8,
--         lowest and highest position of the batch, u16 each
--       2 reports: (epoch u32, n u8, status u8, reason u8, flags u8, when u32,
--         number of positions u16, each position u16)*.
--         Status 255 gives a claim back that was not started.
--       3 claims: (first position u16, number of positions u16, n u8)*
--       then the replies to keep: the ordinal of the report from 1, and the text of the reply
-- Answer: { verdict on the lease, one byte per report, verdict on the claims, one byte per claim }.
--         Reports: 'a' applied, 'r' known before, 'd' accepted twice, 'x' no effect.
--         Claims: '1' granted, '0' not granted. ROLLED_BACK means that nothing was changed.
--
-- This file is the first of three parts. The prelude and claim_and_record.lua follow in the same
-- script. This part is the fast path for the two common cases: a 250 for a first attempt, and a
-- claim of a recipient that was never claimed. It only compares and writes bytes, and makes no
-- function and no table for a record. It leaves all other cases to claim_and_record.lua, which
-- would decide the common cases in the same way.
local ledger, counts, terms, reports, claims = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local sub, byte, rep, pack, unpack = string.sub, string.byte, string.rep, struct.pack, struct.unpack
local epoch, seq, owner, now, may_resend, resend_after, redo, first, last =
  unpack('>I4I4c8I4BI4BI2I2', terms)

local replies = {}
for i = 4, #ARGV, 2 do replies[tonumber(ARGV[i])] = ARGV[i + 1] end

local function keep_reply(position, reply)
  if redis.call('HSETNX', KEYS[3], position, sub(reply, -2000)) == 1 then return end
  redis.call('HSET', KEYS[3], position,
    sub(redis.call('HGET', KEYS[3], position) .. '\n' .. reply, -2000))
end

-- `count` is the number of records, or nil if the fast path did not run. `left_reports` holds the
-- ordinals of the reports that are left, and `left_claims` the offsets of the claims that are left.
local count, left_reports, left_claims
local page_after, sent_count, granted_count = nil, 0, 0

local raw_header = redis.call('GETRANGE', ledger, 0, 31)
-- The fast path runs for the next batch of the holder: epoch, sequence number and owner match.
if redo == 0 and sub(raw_header, 5, 8) == sub(terms, 1, 4)
  and sub(raw_header, 13, 24) == sub(terms, 5, 16)
  and (claims == '' or redis.call('HGET', KEYS[4], 'state') == 'in_progress') then
  redis.call('SETRANGE', ledger, 12, pack('>I4', seq + 1))
  count, left_reports, left_claims = unpack('>I2', raw_header, 3), {}, {}
  local page = redis.call('GETRANGE', ledger, 32 + 16 * first, 47 + 16 * last)
  -- The changed ranges of the page, as offsets. If at most MAX_GAP unchanged bytes lie between two
  -- changes, one range covers both, because a second command would cost more.
  local MAX_GAP, range_count, range_start, range_end = 128, 0, {}, {}

  -- The full logic decides later than this part. The reports and claims of a recipient must keep
  -- their order. For this reason the positions of reports must rise. A claim must have a higher
  -- position than all reports that are left and all earlier claims.
  local highest_seen, highest_blocked, report_number, at = -1, -1, 0, 1
  while at < #reports do
    local length = unpack('>I2', reports, at + 12)
    -- Status sent, and no flag but ACCEPTED: a 250.
    local is_accepted = sub(reports, at + 5, at + 5) == '\3'
      and sub(reports, at + 7, at + 7) == '\32'
    -- A record that is attempting for the first time, under this very claim, without flags.
    -- It becomes sent with the reason, the flags and the time of the report.
    local claim_number = sub(reports, at, at + 4)
    local first_attempt = '\1\1\0\0' .. claim_number
    local sent_record = '\3\1' .. sub(reports, at + 6, at + 7) .. claim_number
      .. sub(reports, at + 8, at + 11)
    local pieces, piece_count, copied = {}, 0, 0
    for p = at + 14, at + 12 + 2 * length, 2 do
      report_number = report_number + 1
      local high, low = byte(reports, p, p + 1)
      local position = 256 * high + low
      local offset = 16 * (position - first)
      if is_accepted and position > highest_seen
        and sub(page, offset + 1, offset + 9) == first_attempt then
        pieces[piece_count + 1], pieces[piece_count + 2] =
          sub(page, copied + 1, offset), sent_record
        piece_count, copied = piece_count + 2, offset + 13
        if range_count == 0 or offset > range_end[range_count] + MAX_GAP then
          range_count = range_count + 1
          range_start[range_count] = offset
        end
        range_end[range_count] = copied
        if replies[report_number] then keep_reply(position, replies[report_number]) end
      else
        left_reports[report_number] = true
        if position > highest_blocked then highest_blocked = position end
      end
      if position > highest_seen then highest_seen = position end
    end
    if piece_count > 0 then
      pieces[piece_count + 1] = sub(page, copied + 1)
      page, sent_count = table.concat(pieces), sent_count + piece_count / 2
    end
    at = at + 14 + 2 * length
  end

  for at = 1, #claims, 5 do
    local position, length = unpack('>I2I2', claims, at)
    local offset, size = 16 * (position - first), 16 * length
    -- Zero bytes: pending, never claimed, without flags, not tracked.
    if position > highest_blocked and sub(page, offset + 1, offset + size) == rep('\0', size) then
      local attempting = '\1\1\0\0' .. sub(terms, 1, 4) .. sub(claims, at + 4, at + 4)
        .. sub(terms, 17, 20) .. '\0\0\0'
      page = sub(page, 1, offset) .. rep(attempting, length) .. sub(page, offset + size + 1)
      granted_count = granted_count + length
      if range_count == 0 or offset < range_start[range_count]
        or offset > range_end[range_count] + MAX_GAP then
        range_count = range_count + 1
        range_start[range_count], range_end[range_count] = offset, 0
      end
      if offset + size > range_end[range_count] then range_end[range_count] = offset + size end
    else
      left_claims[at] = true
    end
    if position + length - 1 > highest_blocked then highest_blocked = position + length - 1 end
  end

  for i = 1, range_count do
    redis.call('SETRANGE', ledger, 32 + 16 * first + range_start[i],
      sub(page, range_start[i] + 1, range_end[i]))
  end
  if not next(left_reports) and not next(left_claims) then
    if granted_count > 0 then redis.call('HINCRBY', counts, 'pending', -granted_count) end
    if granted_count ~= sent_count then
      redis.call('HINCRBY', counts, 'attempting', granted_count - sent_count)
    end
    if sent_count > 0 then redis.call('HINCRBY', counts, 'sent', sent_count) end
    return { 0, rep('a', sent_count), 0, rep('1', granted_count) }
  end
  page_after = page
end
