-- The full logic of a turn: what first_attempts.lua has left. Keys and arguments are described there.
local OWN_GROUP = count ~= nil -- checked and begun there
local GIVEN_BACK = 255
local verdict, again = OK, false
if not OWN_GROUP then
  local h = header(ledger)
  if not h then return { MISSING, '', MISSING, '' } end
  verdict, again = enter(ledger, h, owner, epoch, seq)
  count, redo = h.count, redo == 1
  load(ledger, first, last)
else
  testing = band(byte(head, 2), 1) == 1
  page, page_from, redo = page_now, first, false
end
if resends == 0 then resend_after = nil end
local sum, outcome, answers = { pending = -granted, attempting = granted - sent, sent = sent }, {}, {}

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

local function report(position, its_epoch, n, new, text)
  if again then return 'r' end
  if verdict == ROLLED_BACK or position >= count then return 'x' end
  local r, result, change = read(position), 'x', nil
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
    if text then keep(position, text) end
  end
  return result
end

local at = 1
while at < #reports do
  local its_epoch, n, status, reason, flags, when, many = unpack('>I4BBBBI4I2', reports, at)
  local new = { status = status, reason = reason, flags = flags, when = when }
  for p = at + 14, at + 12 + 2 * many, 2 do
    local number = #outcome + 1
    if OWN_GROUP and not left[number] then
      outcome[number] = 'a'
    else
      outcome[number] = report(unpack('>I2', reports, p), its_epoch, n, new, texts[number])
    end
  end
  at = at + 14 + 2 * many
end

local claim_verdict = verdict
if verdict == OK and not OWN_GROUP and not redo and claims ~= '' and redis.call('HGET', KEYS[4], 'state') ~= 'in_progress' then
  claim_verdict = FORBIDDEN
end

local function claim(position, n)
  if position >= count or not again and claim_verdict ~= OK then return '0' end
  local r = read(position)
  if again then -- granted the first time, when its answer was lost? It stays so when the delivery was paused meanwhile.
    return r.status == ATTEMPTING and r.epoch == epoch and r.n == n and '1' or '0'
  end
  local due = claimable_at(r, resend_after)
  if due and due <= now or redo and (r.status <= DEFERRED or r.status == IN_DOUBT) then
    alter(position, r, sum, function()
      if r.status == IN_DOUBT then r.flags = bor(r.flags, RESENT) end
      r.flags = band(r.flags, 255 - SETTLED)
      r.status, r.epoch, r.n, r.when = ATTEMPTING, epoch, n, now
      r.attempts = math.min(r.attempts + 1, 255)
    end)
    return '1'
  end
  if redo and has(r.flags, ACCEPTED) and not has(r.flags, RESENT) and (epoch > r.epoch or epoch == r.epoch and n > r.n) then
    -- it was sent again, and what became of it before was put back first
    alter(position, r, sum, function() r.flags = bor(r.flags, RESENT) end)
  end
  return '0'
end

for at = 1, #claims, 5 do
  local position, many, n = unpack('>I2I2B', claims, at)
  if OWN_GROUP and not left_claims[at] then
    answers[#answers + 1] = string.rep('1', many)
  else
    for p = position, position + many - 1 do answers[#answers + 1] = claim(p, n) end
  end
end
publish(ledger, counts, sum)
return { verdict, table.concat(outcome), claim_verdict, table.concat(answers) }
