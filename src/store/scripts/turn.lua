-- The holder's turn: records what became of its claims, then claims more. Records compare the claim number, not the
-- lease: late truth is never thrown away. Claims need the lease, the sequence number and a delivery in progress.
-- KEYS: ledger, counts, replies, delivery
-- ARGV: owner, epoch, seq, now, resend after seconds (-1: hold),
--       records packed as (position u16, epoch u32, n u8, status u8, reason u8, flags u8, when u32)*,
--       claims packed as (position u16, n u8)*, whether it is done again because Redis has forgotten it (0 or 1),
--       the first and the last of all these positions, then one reply text per record, '' for none.
--       Status 255 gives a claim back that was not started.
-- Answers { verdict on the lease, one byte per record: 'a' applied, 'r' known before, 'd' accepted twice, 'x' of no effect,
--           verdict on the claims, one byte per claim: '1' granted, '0' not }. ROLLED_BACK changes nothing.
local ledger, counts, replies = KEYS[1], KEYS[2], KEYS[3]
local owner, epoch, seq, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local resend_after = tonumber(ARGV[5])
if resend_after < 0 then resend_after = nil end
local records, claims, redo, FIRST_REPLY = ARGV[6], ARGV[7], ARGV[8] == '1', 11
local GIVEN_BACK = 255
local h = header(ledger)
if not h then return { MISSING, '', MISSING, '' } end
local verdict, again = enter(ledger, h, owner, epoch, seq)
if verdict == ROLLED_BACK then
  local nothing, none = string.rep('x', #records / 14), string.rep('0', #claims / 3)
  return { verdict, nothing, verdict, none }
end
local sum, outcome = {}, {}

load(ledger, tonumber(ARGV[9]), tonumber(ARGV[10]))

local function keep(position, text)
  if text == '' then return end
  local old = redis.call('HGET', replies, position)
  if old then text = old .. '\n' .. text end
  redis.call('HSET', replies, position, string.sub(text, -2000))
end

local function settle(r, new)
  r.status, r.reason, r.when = new.status, new.reason, new.when
  r.flags = bor(band(r.flags, RESENT + DUPLICATE + ACCEPTED), new.flags)
end

-- A record under the recipient's newest claim.
local function current(r, new)
  local open = r.status == ATTEMPTING or r.status == IN_DOUBT
  if new.status == GIVEN_BACK then
    if r.status ~= ATTEMPTING then return 'x' end
    return 'a', function()
      r.attempts = math.max(r.attempts - 1, 0)
      r.status, r.when = r.attempts == 0 and PENDING or DEFERRED, now
      if has(r.flags, ACCEPTED) then sent_before(r, now) end
    end
  end
  if new.status == SENT then
    if r.status == SENT and has(r.flags, ACCEPTED) then return 'r' end
    if r.status == FAILED and not has(r.flags, SETTLED) then -- a bounce came first; only note the acceptance
      if not has(r.flags, ACCEPTED) then return 'a', function() r.flags = bor(r.flags, ACCEPTED) end end
      if has(r.flags, DUPLICATE) or not has(r.flags, RESENT) then return 'r' end
      return 'd', function() r.flags = bor(r.flags, DUPLICATE) end -- an earlier one was accepted, too, or possibly so
    end
    local twice = open and has(r.flags, ACCEPTED)
    return twice and 'd' or 'a', function()
      settle(r, new)
      r.flags = bor(r.flags, ACCEPTED)
      if twice then r.flags = bor(r.flags, DUPLICATE) end
    end
  end
  if not open then return r.status == new.status and 'r' or 'x' end
  -- a late "not accepted" leaves it in doubt: its chunk may be settled and its delivery finished by now
  if r.status == IN_DOUBT and new.status ~= FAILED then return 'x' end
  return 'a', function()
    if not has(r.flags, ACCEPTED) then return settle(r, new) end
    if new.status == IN_DOUBT then return lose(r, new.when) end
    sent_before(r, new.when)
  end
end

-- A record under an earlier claim: only an acceptance matters. While the newer claim is under way it is only noted.
-- Otherwise it decides, and its number becomes the recipient's: told again it is known, and not a second acceptance.
local function outdated(r, new, epoch_of_new, n_of_new)
  if new.status ~= SENT then return 'x' end
  if has(r.flags, DUPLICATE) or r.status == ATTEMPTING and has(r.flags, ACCEPTED) then return 'r' end
  if has(r.flags, ACCEPTED) then return 'd', function() r.flags = bor(r.flags, DUPLICATE) end end
  local possibly_twice = r.status == IN_DOUBT
  return 'a', function()
    if r.status ~= ATTEMPTING then
      r.epoch, r.n = epoch_of_new, n_of_new
      if not has(r.flags, BOUNCED) then settle(r, new) end
    end
    r.flags = bor(r.flags, possibly_twice and ACCEPTED + DUPLICATE or ACCEPTED)
  end
end

for at = 1, #records, 14 do
  local position, its_epoch, n, status, reason, flags, when = unpack('>I2I4BBBBI4', records, at)
  local new = { status = status, reason = reason, flags = flags, when = when }
  local result, change = 'x', nil
  if again then
    result = 'r'
  elseif position < h.count then
    local r = read(position)
    local newest = r.epoch == its_epoch and r.n == n
    -- a claim that Redis has forgotten: it is the newest one, but does not end the attempt of an earlier one by failing
    local forgotten = its_epoch > r.epoch or its_epoch == r.epoch and n > r.n
    if forgotten and r.status == ATTEMPTING and new.status ~= SENT then
      result = 'x'
    elseif forgotten and has(r.flags, ACCEPTED) and (new.status == SENT or new.status == IN_DOUBT) then
      -- an earlier one was accepted, too, or possibly so, and was put back first
      result = has(r.flags, DUPLICATE) and 'r' or new.status == SENT and 'd' or 'a'
      if result ~= 'r' then change = function() r.flags = bor(r.flags, DUPLICATE, RESENT) end end
    elseif newest or forgotten then
      result, change = current(r, new)
    else
      result, change = outdated(r, new, its_epoch, n)
    end
    if change then
      alter(position, r, sum, function()
        if forgotten then r.epoch, r.n = its_epoch, n end
        change()
      end)
      keep(position, ARGV[FIRST_REPLY + #outcome])
    end
  end
  outcome[#outcome + 1] = result
end

local claim_verdict, granted = verdict, {}
if verdict == OK and not redo and #claims > 0 and redis.call('HGET', KEYS[4], 'state') ~= 'in_progress' then claim_verdict = FORBIDDEN end
for at = 1, #claims, 3 do
  local position, n = unpack('>I2B', claims, at)
  local answer = '0'
  if position < h.count and (again or claim_verdict == OK) then
    local r = read(position)
    local due = claimable_at(r, resend_after)
    if again then -- granted the first time, when its answer was lost? It stays so when the delivery was paused meanwhile.
      if r.status == ATTEMPTING and r.epoch == epoch and r.n == n then answer = '1' end
    elseif due and due <= now or redo and (r.status <= DEFERRED or r.status == IN_DOUBT) then
      alter(position, r, sum, function()
        if r.status == IN_DOUBT then r.flags = bor(r.flags, RESENT) end
        r.flags = band(r.flags, 255 - SETTLED)
        r.status, r.epoch, r.n, r.when = ATTEMPTING, epoch, n, now
        r.attempts = math.min(r.attempts + 1, 255)
      end)
      answer = '1'
    elseif redo and has(r.flags, ACCEPTED) and not has(r.flags, RESENT) and (epoch > r.epoch or epoch == r.epoch and n > r.n) then
      -- it was sent again, and what became of it before was put back first
      alter(position, r, sum, function() r.flags = bor(r.flags, RESENT) end)
    end
  end
  granted[#granted + 1] = answer
end
publish(ledger, counts, sum)
return { verdict, table.concat(outcome), claim_verdict, table.concat(granted) }
