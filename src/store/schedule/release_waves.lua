-- Releases the waves of a delivery that are due; those that are overdue beyond the grace window are held for a person.
-- A scheduled delivery goes on with the first wave that is released, and is held if there are only overdue ones. What was
-- released before counts as well: it may have been paused before it was started.
-- KEYS: delivery, waves   ARGV: now, grace window in seconds, '1' to release those that are held
-- Answers { state, newly released, newly held, released but not opened, held, recipients that are not released,
--           earliest due of those that wait or -1 }.
local WAVE, WAITING, RELEASED, OPEN, STANDS = 16, 0, 1, 2, 3
local now, grace, all = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local state = redis.call('HGET', KEYS[1], 'state') or ''
local going = state == 'start_pending' or state == 'in_progress'
local waits = state == 'scheduled' or state == 'held'
local may = going or waits or all and state == 'paused'
local raw = redis.call('GET', KEYS[2]) or ''
local released, newly_held, unopened, opened, held, unreleased, earliest = 0, 0, 0, 0, 0, 0, -1

for at = 1, #raw, WAVE do
  local due, _, recipients, is = unpack('>I4I4I4B', raw, at)
  local was = is
  if may and is == WAITING and due <= now then
    -- 0 is at once: it cannot be late
    is = due > 0 and now - due > grace and STANDS or RELEASED
    if is == STANDS then newly_held = newly_held + 1 end
  end
  if may and all and was == STANDS then is = RELEASED end
  if is ~= was then
    redis.call('SETRANGE', KEYS[2], at + 3, pack('>I4I4B', is == RELEASED and now or 0, recipients, is))
    if is == RELEASED then released = released + 1 end
  end
  if is == RELEASED then unopened = unopened + 1 end
  if is == OPEN then opened = opened + 1 end
  if is == STANDS then held = held + 1 end
  if is == WAITING and (earliest < 0 or due < earliest) then earliest = due end
  if is == WAITING or is == STANDS then unreleased = unreleased + recipients end
end

if waits then
  local next_state = unopened + opened > 0 and 'start_pending' or held > 0 and 'held' or state
  if next_state ~= state then
    state = next_state
    redis.call('HSET', KEYS[1], 'state', state)
    redis.call('HINCRBY', KEYS[1], 'revision', 1)
  end
end
return { state, released, newly_held, unopened, held, unreleased, earliest }
