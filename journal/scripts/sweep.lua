-- include prelude
-- include objects
-- Does everything of one slot that is due. Nothing is popped: a transition replaces its deadline by the next one, and what
-- must reach Kafka stays in `due`, further out, until it is claimed or acknowledged. A lease that may not be ended stays as it is.
-- KEYS[1] due  KEYS[2] status prefix
-- ARGV[1] the slot's prefix  [2] members at most  [3] reply_lease_ms  [4] prefix of the hint channels
--     [5] until when leases may be ended, in ms of Redis's clock; those with score 0 were ended on purpose and may be always
--     [6] bytes of what is told, about: what is left is told by the next sweep
-- Returns {ms until the next deadline or -1, {action, ...}, now}; an action is {'resume', id, epoch, service}
--     | {'reply', id, topics or false, output, callers or false} | {'send', id, position, {type, body}} | {'cascade', id} | {'hint', worker, id}
local now = now_ms()
local prefix = ARGV[1]
local members_max = tonumber(ARGV[2])
local ends_leases = now <= tonumber(ARGV[5])
local held, told_bytes, told_bytes_max = 0, 0, tonumber(ARGV[6])
local actions = {}

local function act(...) actions[#actions + 1] = {...} end

local function wake(keys, id, h)
  make_ready(keys, id, h[2], now)
  act('resume', id, h[1], h[5])
end

local function event(keys, id, h, kind, body)
  local length = tonumber(h[3]) + 1
  redis.call('XADD', keys[2], length .. '-' .. h[1], kind, body)
  redis.call('HSET', keys[1], 'length', length)
end

local on = {}

-- As `transitions.SUSPECT_AFTER` and its delays, in ms.
local SUSPECT_AFTER, LOST_DELAY_MS, LOST_DELAY_MS_MAX = 3, 1000, 60000

-- The worker died or froze: this counts as a failed attempt, so that what kills its workers ends paused. What was lost so
-- often in a row is run alone, and not counted before its turn: then another one took the worker down. It waits, too, so
-- that the workers are not all that it takes down.
function on.lease(keys, id, h, _, score)
  if h[2] ~= 'running' then return end
  if not ends_leases and score > 0 then
    held = held + 1
    return true
  end
  local about = redis.call('HMGET', keys[1], 'lost', 'alone')
  local lost = tonumber(about[1] or '0')
  if lost >= SUSPECT_AFTER and about[2] ~= h[1] then return wake(keys, id, h) end
  lost = lost + 1
  local delay = 0
  if lost >= SUSPECT_AFTER then delay = math.min(LOST_DELAY_MS_MAX, LOST_DELAY_MS * 2 ^ (lost - SUSPECT_AFTER)) end
  local text = 'worker ' .. (h[4] or '?') .. ' stopped answering and its lease ended'
  event(keys, id, h, 'attempt_failed', '{"at":' .. whole(now) .. ',"error":' .. cjson.encode(text) ..
    ',"stack":"","command":"","retry_ms":' .. whole(delay) .. '}')
  redis.call('HINCRBY', keys[1], 'failures', 1)
  redis.call('HSET', keys[1], 'last_failure', text, 'lost', lost)
  if delay == 0 then return wake(keys, id, h) end
  -- Without a worker no renewal that comes late takes it up again.
  redis.call('HSET', keys[1], 'status', 'backing-off', 'worker', '')
  reindex(keys[4], id, h[2], 'backing-off', now)
  redis.call('ZADD', keys[3], whole(now + delay), 'retry:' .. id)
end

function on.retry(keys, id, h) if h[2] == 'backing-off' then wake(keys, id, h) end end
function on.wake(keys, id, h) if h[2] == 'suspended' then wake(keys, id, h) end end

-- A delay ends before the object's queue begins.
function on.start(keys, id, h)
  if h[2] ~= 'scheduled' then return end
  local about = redis.call('HMGET', keys[1], 'mode', 'key')
  if about[1] == 'exclusive' and not enter(prefix, h[5] .. '/' .. about[2], id) then
    redis.call('HSET', keys[1], 'status', 'pending')
    reindex(keys[4], id, h[2], 'pending', now)
    return
  end
  wake(keys, id, h)
end

function on.sleep(keys, id, h, index)
  if h[2] == 'completed' then return end
  event(keys, id, h, 'completion', '{"index":' .. index .. ',"at":' .. whole(now) .. ',"value":null}')
  if h[2] == 'suspended' then wake(keys, id, h) end
  if h[2] == 'running' then
    redis.call('PUBLISH', ARGV[4] .. h[4], id)
    act('hint', h[4], id)
  end
end

function on.ready(keys, id, h)
  if h[2] ~= 'ready' then return end
  local redelivery = math.min(tonumber(h[6]) * 2, REDELIVERY_MS_MAX)
  redis.call('HSET', keys[1], 'redelivery', redelivery)
  redis.call('ZADD', keys[3], whole(now + redelivery), 'ready:' .. id)
  act('resume', id, h[1], h[5])
  return true
end

function on.reply(keys, id, h)
  if h[2] ~= 'completed' then return end
  redis.call('ZADD', keys[3], whole(now + ARGV[3]), 'reply:' .. id)
  local answer = redis.call('HMGET', keys[1], 'reply_to', 'output', 'callers')
  told_bytes = told_bytes + #(answer[2] or '')
  act('reply', id, answer[1], answer[2], answer[3])
  return true
end

-- What it sent is not acknowledged yet: told again, with what is to be sent.
function on.send(keys, id, h, position)
  local rows = redis.call('XRANGE', keys[2], position, position)
  if not rows[1] then return end
  redis.call('ZADD', keys[3], whole(now + ARGV[3]), 'send:' .. id .. ':' .. position)
  told_bytes = told_bytes + #rows[1][2][2]
  act('send', id, position, rows[1][2])
  return true
end

function on.cascade(keys, id)
  redis.call('ZADD', keys[3], whole(now + ARGV[3]), 'cascade:' .. id)
  act('cascade', id)
  return true
end

-- Leases that are held come before what fell due later, and must not hide it: each is one of what runs.
local looked_at = members_max
if not ends_leases then looked_at = looked_at + redis.call('ZCARD', prefix .. 'status:running') end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', whole(now), 'WITHSCORES', 'LIMIT', 0, looked_at)
for i = 1, #due, 2 do
  if (i - 1) / 2 - held >= members_max or told_bytes >= told_bytes_max then break end
  local member = due[i]
  local kind, id, index = string.match(member, '^(%a+):([^:]+):?(%d*)$')
  local keys = {prefix .. 'invocation:' .. id, prefix .. 'journal:' .. id, KEYS[1], prefix .. 'status:'}
  local h = redis.call('HMGET', keys[1], 'epoch', 'status', 'length', 'worker', 'service', 'redelivery')
  local kept = h[1]
  if kept and on[kind] then
    kept = on[kind](keys, id, h, index, tonumber(due[i + 1]))
  elseif kept then
    -- A newer version put it there: out of this worker's way for a while, and in reach of those that know it.
    redis.call('ZADD', KEYS[1], whole(now + ARGV[3]), member)
  end
  if not kept then redis.call('ZREM', KEYS[1], member) end
end
redis.call('ZREMRANGEBYSCORE', prefix .. 'status:completed', '-inf', whole(now))
-- What was done is gone or further out, so that the first ones are those that are held.
local head = redis.call('ZRANGE', KEYS[1], held, held, 'WITHSCORES')
local next_ms = -1
if head[2] then next_ms = math.max(0, math.ceil(head[2] - now)) end
return {next_ms, actions, now}
