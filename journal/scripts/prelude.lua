-- Included by scripts that say so (`-- include prelude`): what several of them do the same way.
-- Time is Redis's own; numbers are formatted by hand because Lua's tostring loses digits above 1e14.
-- `keys` is what every script about one invocation is given: {invocation, journal, due, status prefix}.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Moves an invocation from one status index to another; the caller writes the status itself into the hash.
local function reindex(prefix, id, from, to, score)
  if from and from ~= to then redis.call('ZREM', prefix .. from, id) end
  redis.call('ZADD', prefix .. to, whole(score), id)
end

-- How long a `ready` invocation waits for its resume record to be claimed before it is produced again, and how much longer
-- for each that was ready before it in the slot; doubled each time.
local REDELIVERY_MS, BEHIND_MS, REDELIVERY_MS_MAX = 10000, 100, 3600000

-- Makes an invocation ready: any worker may claim it with the epoch it has now.
local function make_ready(keys, id, from, now)
  local redelivery = math.min(REDELIVERY_MS + BEHIND_MS * redis.call('ZCARD', keys[4] .. 'ready'), REDELIVERY_MS_MAX)
  redis.call('HSET', keys[1], 'status', 'ready', 'redelivery', redelivery)
  reindex(keys[4], id, from, 'ready', now)
  redis.call('ZREM', keys[3], 'lease:' .. id, 'retry:' .. id, 'wake:' .. id, 'start:' .. id)
  redis.call('ZADD', keys[3], whole(now + redelivery), 'ready:' .. id)
end
