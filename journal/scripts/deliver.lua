-- include prelude
-- Brings what comes from outside into a journal: a signal, a cancellation, the result of an awakeable. Not fenced; known once.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] once: a name that makes a repeat known  [3] type  [4] body
--     [5] prefix of the hint channels  [6] slot prefix  [7] retention_ms, unless its hash has another
--     [8] journal_retention_ms, likewise  [9] reply_lease_ms  [10] a worker that needs no hint, or ''
--     [11] for the result of an awakeable: its command index, else ''  [12] how many entries were looked at, and none of them
--     is another command of that index; -1: it was not looked  [13] signals and results of awakeables at most
--     [14] bytes of them at most  [15] cancellations at most
-- Returns {'delivered', false | {'resume', epoch, service} | {'hint', worker}, next of the object or false}
--     | {'known'} | {'completed'} | {'unknown'} | {'full'}: it was brought too many, or too much
--     | {'unsure'}: whether that is an awakeable; look | {'no-awakeable', type}: another command has that index
local id, once, kind, body, slot = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local h = redis.call('HMGET', KEYS[1], 'status', 'waiters', 'reply_to', 'callers', 'outgoing', 'mode', 'service', 'key',
  'epoch', 'length', 'worker', 'seq', 'retention', 'journal_retention', 'received', 'received_bytes', 'cancellations')
if not h[9] then return {'unknown'} end
if h[1] == 'completed' then return {'completed'} end
local length = tonumber(h[10])
if ARGV[11] ~= '' and redis.call('HEXISTS', KEYS[1], 'a:' .. ARGV[11]) == 0 then
  if ARGV[12] == '-1' then return {'unsure'} end
  for _, row in ipairs(redis.call('XRANGE', KEYS[2], ARGV[12] + 1, '+')) do
    local type, text = row[2][1], row[2][2]
    if type ~= 'completion' and string.match(text, '^{"index":(%d+)') == ARGV[11] then 
      return {'no-awakeable', type == 'step_failed' and 'run' or type}
    end
  end
end
if redis.call('HEXISTS', KEYS[1], once) == 1 then return {'known'} end
if kind == 'cancelled' then
  if tonumber(h[17] or '0') >= tonumber(ARGV[15]) then return {'full'} end
  redis.call('HINCRBY', KEYS[1], 'cancellations', 1)
elseif kind == 'signalled' or ARGV[11] ~= '' then
  local count, bytes = tonumber(h[15] or '0') + 1, tonumber(h[16] or '0') + #body
  if count > tonumber(ARGV[13]) or bytes > tonumber(ARGV[14]) then return {'full'} end
  redis.call('HSET', KEYS[1], 'received', count, 'received_bytes', whole(bytes))
end
redis.call('HSET', KEYS[1], once, '1')
local now = now_ms()
local function write(type, text)
  length = length + 1
  redis.call('XADD', KEYS[2], length .. '-' .. h[9], type, text)
end
write(kind, body)
-- What was made ready and never claimed has not begun, unless it is a restart that has kept something.
local waits = h[1] == 'scheduled' or h[1] == 'pending' or (h[1] == 'ready' and h[9] == '0' and h[10] == '1')
if kind == 'cancelled' and waits then
  -- include objects
  -- include finish
  local output = '{"at":' .. whole(now) .. ',"failure":{"code":409,"message":"cancelled","metadata":{}}}'
  write('output', output)
  local told = finish(KEYS, slot, id, h, output, length, h[12] or 0, now, h[13] or ARGV[7], h[14] or ARGV[8], ARGV[9])
  return {'delivered', {'ended', told[1], told[2], output}, told[3]}
end
redis.call('HSET', KEYS[1], 'length', length)
-- For `leave`: an attempt that has not seen it does not back off. What failed too often may try to compensate.
if kind == 'cancelled' then redis.call('HSET', KEYS[1], 'cancelled', length, 'failures', 0, 'lost', 0) end
if h[1] == 'suspended' or (kind == 'cancelled' and (h[1] == 'backing-off' or h[1] == 'paused')) then
  make_ready(KEYS, id, h[1], now)
  return {'delivered', {'resume', h[9], h[7]}, false}
end
if h[1] == 'running' then
  if h[11] ~= ARGV[10] then redis.call('PUBLISH', ARGV[5] .. h[11], id) end
  return {'delivered', {'hint', h[11]}, false}
end
return {'delivered', false, false}
