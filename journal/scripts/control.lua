-- include prelude
-- include objects
-- include finish
-- What an operator does to an invocation without asking its handler: kill, pause (where it does not run), resume, purge.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] kill | pause | resume | purge  [3] body of the event, or of the output for kill  [4] slot prefix
--     [5] retention_ms, unless its hash has another  [6] journal_retention_ms, likewise  [7] reply_lease_ms  [8] prefix of the hint channels  [9] body of the second event of a pause
-- Returns {'done', {'resume', epoch, service} | {'hint', worker} | {'killed', topics, callers, output} | false, next of the object or false}
--     | {'unknown'} | {'unchanged', status, whether its callees are still to be killed}
local id, what, slot = ARGV[1], ARGV[2], ARGV[4]
local h = redis.call('HMGET', KEYS[1], 'status', 'waiters', 'reply_to', 'callers', 'outgoing', 'mode', 'service', 'key',
  'epoch', 'length', 'worker', 'seq', 'retention', 'journal_retention')
if not h[9] then return {'unknown'} end
local status, length = h[1], tonumber(h[10])
local now = now_ms()
local function write(type, text)
  length = length + 1
  redis.call('XADD', KEYS[2], length .. '-' .. h[9], type, text)
end
if what == 'purge' then
  if status ~= 'completed' then return {'unchanged', status} end
  -- Somebody waits for what it owes: not before that is acknowledged.
  if tonumber(h[5] or '0') > 0 or redis.call('ZSCORE', KEYS[3], 'reply:' .. id) then return {'unchanged', status} end
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('ZREM', KEYS[4] .. 'completed', id)
  if h[6] == 'main' then
    redis.call('DEL', slot .. 'state:' .. h[7] .. '/' .. h[8], slot .. 'promises:' .. h[7] .. '/' .. h[8])
  end
  return {'done', false, false}
end
if status == 'completed' then
  return {'unchanged', status, what == 'kill' and redis.call('ZSCORE', KEYS[3], 'cascade:' .. id) and 1 or 0}
end

-- As `memory_ending.may_have_called`: entries at the end of a journal, beyond which it is taken to have.
local LOOKED_AT_MAX, PAGE_MAX = 1000, 100

-- Whether a call may be without an answer.
local function may_have_called()
  local answered, before = {}, '+'
  for _ = 1, LOOKED_AT_MAX / PAGE_MAX do
    local rows = redis.call('XREVRANGE', KEYS[2], before, '-', 'COUNT', PAGE_MAX)
    for _, row in ipairs(rows) do
      local index = string.match(row[2][2], '^{"index":(%d+)')
      if row[2][1] == 'completion' then answered[index] = true end
      if row[2][1] == 'call' and not answered[index] then return true end
    end
    if #rows < PAGE_MAX then return false end
    before = '(' .. rows[#rows][1]
  end
  return true
end

if what == 'kill' then
  local holds = h[6] == 'exclusive' and may_have_called()
  write('output', ARGV[3])
  -- A new token keeps out an attempt that still runs.
  redis.call('HSET', KEYS[1], 'token', '', 'worker', '')
  -- Its callees are killed by who sweeps this, and until then it is kept.
  h[5] = redis.call('HINCRBY', KEYS[1], 'outgoing', 1)
  redis.call('ZADD', KEYS[3], 0, 'cascade:' .. id)
  local told = finish(KEYS, slot, id, h, ARGV[3], length, h[12] or 0, now, h[13] or ARGV[5], h[14] or ARGV[6], ARGV[7], holds)
  if status == 'running' and h[11] and h[11] ~= '' then redis.call('PUBLISH', ARGV[8] .. h[11], id) end
  return {'done', {'killed', told[1], told[2], ARGV[3]}, told[3]}
end
if what == 'resume' then
  if status ~= 'paused' then return {'unchanged', status} end
  write('resumed', ARGV[3])
  redis.call('HSET', KEYS[1], 'length', length, 'failures', 0, 'lost', 0)
  make_ready(KEYS, id, status, now)
  return {'done', {'resume', h[9], h[7]}, false}
end
if status == 'paused' then return {'unchanged', status} end
if status == 'pending' or status == 'scheduled' then return {'unchanged', status} end
if status == 'running' then
  -- Its attempt pauses itself when its steps have ended. Asked once of each attempt.
  if redis.call('HSETNX', KEYS[1], 'p:' .. h[9], '1') == 1 then
    write('pause_asked', ARGV[3])
    redis.call('HSET', KEYS[1], 'length', length)
  end
  redis.call('PUBLISH', ARGV[8] .. h[11], id)
  return {'done', {'hint', h[11]}, false}
end
write('paused', ARGV[9])
redis.call('HSET', KEYS[1], 'status', 'paused', 'length', length)
redis.call('ZREM', KEYS[3], 'ready:' .. id, 'retry:' .. id, 'wake:' .. id)
reindex(KEYS[4], id, status, 'paused', now)
return {'done', false, false}
