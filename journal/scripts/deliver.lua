-- include prelude
-- Brings what comes from outside into a journal: a completion, a signal, a cancellation. Not fenced; known once.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] once: a name that makes a repeat known  [3] position: entries that there must be  [4] type  [5] body
--     [6] prefix of the hint channels  [7] slot prefix  [8] retention_ms, unless its hash has another
--     [9] journal_retention_ms, likewise  [10] reply_lease_ms  [11] a worker that needs no hint, or ''
--     [12] for the result of an awakeable: its command index, else ''  [13] how many entries were looked at, and none of them
--     is another command of that index; -1: it was not looked  [14] signals and results of awakeables at most
--     [15] bytes of them at most  [16] cancellations at most
-- Returns {'delivered', false | {'resume', epoch, service} | {'hint', worker}, next of the object or false}
--     | {'known'} | {'completed'} | {'unknown'} | {'gap'} | {'full'}: it was brought too many, or too much
--     | {'unsure'}: whether that is an awakeable; look | {'no-awakeable', type}: another command has that index
local id, once, kind, body, slot = ARGV[1], ARGV[2], ARGV[4], ARGV[5], ARGV[7]
local h = redis.call('HMGET', KEYS[1], 'status', 'waiters', 'reply_to', 'callers', 'outgoing', 'mode', 'service', 'key',
  'epoch', 'length', 'worker', 'seq', 'retention', 'journal_retention', 'received', 'received_bytes', 'cancellations')
if not h[9] then return {'unknown'} end
if h[1] == 'completed' then return {'completed'} end
local length = tonumber(h[10])
if tonumber(ARGV[3]) > length then return {'gap'} end
if ARGV[12] ~= '' and redis.call('HEXISTS', KEYS[1], 'a:' .. ARGV[12]) == 0 then
  if ARGV[13] == '-1' then return {'unsure'} end
  for _, row in ipairs(redis.call('XRANGE', KEYS[2], ARGV[13] + 1, '+')) do
    local type, text = row[2][1], row[2][2]
    if type ~= 'completion' and string.match(text, '^{"index":(%d+)') == ARGV[12] then 
      return {'no-awakeable', type == 'step_failed' and 'run' or type}
    end
  end
end
if redis.call('HEXISTS', KEYS[1], once) == 1 then return {'known'} end
if kind == 'cancelled' then
  if tonumber(h[17] or '0') >= tonumber(ARGV[16]) then return {'full'} end
  redis.call('HINCRBY', KEYS[1], 'cancellations', 1)
elseif kind == 'signalled' or ARGV[12] ~= '' then
  local count, bytes = tonumber(h[15] or '0') + 1, tonumber(h[16] or '0') + #body
  if count > tonumber(ARGV[14]) or bytes > tonumber(ARGV[15]) then return {'full'} end
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
  local told = finish(KEYS, slot, id, h, output, length, h[12] or 0, now, h[13] or ARGV[8], h[14] or ARGV[9], ARGV[10])
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
  if h[11] ~= ARGV[11] then redis.call('PUBLISH', ARGV[6] .. h[11], id) end
  return {'delivered', {'hint', h[11]}, false}
end
return {'delivered', false, false}
