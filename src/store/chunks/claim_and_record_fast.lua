-- The holder's turn: records what became of its claims, then claims more. Records compare the claim number, not the
-- lease: late truth is never thrown away. Claims need the lease, the sequence number and a delivery in progress.
-- KEYS: ledger, counts, replies, delivery
-- ARGV: terms packed as epoch u32, seq u32, owner (8 bytes), now u32, whether those in doubt are sent again u8, after how many
--         seconds u32, whether it is done again because Redis has forgotten it u8, the first and the last of all positions u16,
--       reports packed as (epoch u32, n u8, status u8, reason u8, flags u8, when u32, how many u16, position u16*)*,
--       claims packed as (first position u16, how many u16, n u8)*,
--       then the replies that are to be kept, each as the number of its report, from 1, and its text.
--       Status 255 gives a claim back that was not started.
-- Answers { verdict on the lease, one byte per report: 'a' applied, 'r' known before, 'd' accepted twice, 'x' of no effect,
--           verdict on the claims, one byte per claim: '1' granted, '0' not }. ROLLED_BACK changes nothing.
--
-- This part stands before the prelude and decides what nearly all groups are made of: a 250 of a first attempt, and claims of
-- recipients nobody ever claimed. It compares and writes bytes; no function, no table is made for a record. What is
-- anything else it leaves to the full logic behind it, which would decide these the same way.
local ledger, counts, terms, reports, claims = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local sub, byte, rep, pack, unpack = string.sub, string.byte, string.rep, struct.pack, struct.unpack
local epoch, seq, owner, now, resends, resend_after, redo, first, last = unpack('>I4I4c8I4BI4BI2I2', terms)

local texts = {}
for i = 4, #ARGV, 2 do texts[tonumber(ARGV[i])] = ARGV[i + 1] end

local function keep(position, text)
  if redis.call('HSETNX', KEYS[3], position, sub(text, -2000)) == 1 then return end
  redis.call('HSET', KEYS[3], position, sub(redis.call('HGET', KEYS[3], position) .. '\n' .. text, -2000))
end

-- nil: nothing was decided here. Else how many records there are, and what is left: reports by number, claims by where they begin.
local count, left, left_claims
local page_now, sent, granted = nil, 0, 0

local head = redis.call('GETRANGE', ledger, 0, 31)
-- the holder's next group: epoch, sequence number and owner are what it expects
if redo == 0 and sub(head, 5, 8) == sub(terms, 1, 4) and sub(head, 13, 24) == sub(terms, 5, 16)
  and (claims == '' or redis.call('HGET', KEYS[4], 'state') == 'in_progress') then
  redis.call('SETRANGE', ledger, 12, pack('>I4', seq + 1))
  count, left, left_claims = unpack('>I2', head, 3), {}, {}
  local page = redis.call('GETRANGE', ledger, 32 + 16 * first, 47 + 16 * last)
  -- The ranges of the page that change, as offsets. Unchanged bytes between two are written, too, if they are few: a command
  -- costs more.
  local BRIDGED, ranges, from, to = 128, 0, {}, {}

  -- What is left is decided later than what is done here. So that a recipient's reports and claims keep their order, positions
  -- must rise, and claims lie behind all reports that are left.
  local before, behind, number, at = -1, -1, 0, 1
  while at < #reports do
    local many = unpack('>I2', reports, at + 12)
    local is_sent = sub(reports, at + 5, at + 5) == '\3' and sub(reports, at + 7, at + 7) == '\32' -- by a 250: ACCEPTED
    -- Attempting for the first time, under this very claim, no flags. It becomes sent with the report's reason, flags and time.
    local claim = sub(reports, at, at + 4)
    local attempted = '\1\1\0\0' .. claim
    local accepted = '\3\1' .. sub(reports, at + 6, at + 7) .. claim .. sub(reports, at + 8, at + 11)
    local pieces, n, copied = {}, 0, 0
    for p = at + 14, at + 12 + 2 * many, 2 do
      number = number + 1
      local high, low = byte(reports, p, p + 1)
      local position = 256 * high + low
      local offset = 16 * (position - first)
      if is_sent and position > before and sub(page, offset + 1, offset + 9) == attempted then
        pieces[n + 1], pieces[n + 2] = sub(page, copied + 1, offset), accepted
        n, copied = n + 2, offset + 13
        if ranges == 0 or offset > to[ranges] + BRIDGED then
          ranges = ranges + 1
          from[ranges] = offset
        end
        to[ranges] = copied
        if texts[number] then keep(position, texts[number]) end
      else
        left[number] = true
        if position > behind then behind = position end
      end
      if position > before then before = position end
    end
    if n > 0 then
      pieces[n + 1] = sub(page, copied + 1)
      page, sent = table.concat(pieces), sent + n / 2
    end
    at = at + 14 + 2 * many
  end

  for at = 1, #claims, 5 do
    local position, many = unpack('>I2I2', claims, at)
    local offset, size = 16 * (position - first), 16 * many
    -- Pending, never claimed, no flags, not tracked.
    if position > behind and sub(page, offset + 1, offset + size) == rep('\0', size) then
      local attempting = '\1\1\0\0' .. sub(terms, 1, 4) .. sub(claims, at + 4, at + 4) .. sub(terms, 17, 20) .. '\0\0\0'
      page = sub(page, 1, offset) .. rep(attempting, many) .. sub(page, offset + size + 1)
      granted = granted + many
      if ranges == 0 or offset < from[ranges] or offset > to[ranges] + BRIDGED then
        ranges = ranges + 1
        from[ranges], to[ranges] = offset, 0
      end
      if offset + size > to[ranges] then to[ranges] = offset + size end
    else
      left_claims[at] = true
    end
    if position + many - 1 > behind then behind = position + many - 1 end
  end

  for i = 1, ranges do redis.call('SETRANGE', ledger, 32 + 16 * first + from[i], sub(page, from[i] + 1, to[i])) end
  if not next(left) and not next(left_claims) then
    if granted > 0 then redis.call('HINCRBY', counts, 'pending', -granted) end
    if granted ~= sent then redis.call('HINCRBY', counts, 'attempting', granted - sent) end
    if sent > 0 then redis.call('HINCRBY', counts, 'sent', sent) end
    return { 0, rep('a', sent), 0, rep('1', granted) }
  end
  page_now = page
end
