-- Releases the due waves of a delivery, and holds the waves that are overdue.
--
-- A wave is overdue if it has been due for longer than the grace window. A scheduled delivery goes
-- on with the first released wave. It becomes held if all its due waves are held. A wave that was
-- released earlier counts, too: the delivery may have been paused before it started.
-- KEYS: delivery, table of waves
-- ARGV: now, grace window in seconds, '1' to release held waves, too
-- Answer: { state of the delivery, newly released waves, newly held waves,
--           released waves whose chunks are not open yet, held waves,
--           recipients of waves that are not released,
--           due time of the next waiting wave (-1: none) }.
local WAVE, WAITING, RELEASED, OPEN, HELD = 16, 0, 1, 2, 3
local now, grace, release_held = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local state = redis.call('HGET', KEYS[1], 'state') or ''
local is_started = state == 'start_pending' or state == 'in_progress'
local is_waiting = state == 'scheduled' or state == 'held'
local may_release = is_started or is_waiting or release_held and state == 'paused'
local table_bytes = redis.call('GET', KEYS[2]) or ''
local newly_released, newly_held, unopened, opened, held_count, unreleased, earliest =
  0, 0, 0, 0, 0, 0, -1

for at = 1, #table_bytes, WAVE do
  local due, _, recipients, wave_state = unpack('>I4I4I4B', table_bytes, at)
  local old_state = wave_state
  if may_release and wave_state == WAITING and due <= now then
    -- A wave with due time 0 is sent at once, so it cannot be overdue.
    wave_state = due > 0 and now - due > grace and HELD or RELEASED
    if wave_state == HELD then newly_held = newly_held + 1 end
  end
  if may_release and release_held and old_state == HELD then wave_state = RELEASED end
  if wave_state ~= old_state then
    -- The time of the release, the recipients and the state follow the due time.
    redis.call('SETRANGE', KEYS[2], at + 3,
      pack('>I4I4B', wave_state == RELEASED and now or 0, recipients, wave_state))
    if wave_state == RELEASED then newly_released = newly_released + 1 end
  end
  if wave_state == RELEASED then unopened = unopened + 1 end
  if wave_state == OPEN then opened = opened + 1 end
  if wave_state == HELD then held_count = held_count + 1 end
  if wave_state == WAITING and (earliest < 0 or due < earliest) then earliest = due end
  if wave_state == WAITING or wave_state == HELD then unreleased = unreleased + recipients end
end

if is_waiting then
  local next_state = unopened + opened > 0 and 'start_pending' or held_count > 0 and 'held' or state
  if next_state ~= state then
    state = next_state
    redis.call('HSET', KEYS[1], 'state', state)
    redis.call('HINCRBY', KEYS[1], 'revision', 1)
  end
end
return { state, newly_released, newly_held, unopened, held_count, unreleased, earliest }
