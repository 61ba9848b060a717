-- Writes the heartbeat of the store, and holds the store if it is behind.
--
-- The clock is that of Redis. A caller that remembers its last heartbeat knows the count that the
-- store must have reached. A smaller count means that the store went back in time. The store is
-- held if it went back by more than a roll-back may undo. A caller without a memory holds a store
-- whose last heartbeat is too old.
-- KEYS: heartbeat (count, at), when each daemon was last seen (milliseconds), hold
-- ARGV: 1 count of the caller's last heartbeat (-1: none), 2 its time (ms),
--       3 how much time a roll-back may undo (ms), 4 how old a heartbeat may be (ms)
-- Answer: { count, time in ms }.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local count = tonumber(redis.call('HGET', KEYS[1], 'count') or '0')
local at = tonumber(redis.call('HGET', KEYS[1], 'at') or '0')
-- an older version of Versand wrote no heartbeat, but noted that it was there
local seen = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
local last = math.max(at, tonumber(seen or '0'))

local why
if tonumber(ARGV[1]) >= 0 then
  if count < tonumber(ARGV[1]) and tonumber(ARGV[2]) - at > tonumber(ARGV[3]) then
    why, last = 'went_back', at
  end
elseif last > 0 and now - last > tonumber(ARGV[4]) then
  why = 'silent'
end
if why then
  local since = math.floor(last / 1000)
  local held = tonumber(redis.call('HGET', KEYS[3], 'since') or 'inf')
  if since < held then
    redis.call('HSET', KEYS[3], 'since', since, 'why', why, 'found', math.floor(now / 1000))
  end
end
redis.call('HSET', KEYS[1], 'count', count + 1, 'at', now)
return { count + 1, now }
