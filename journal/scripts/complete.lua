-- prelude
-- Records the one outcome of an invocation and tells those who wait for it.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] epoch  [3] token  [4] after  [5] seq  [6] retention_ms  [7] journal_retention_ms  [8] body of the output
--     [9] reply_lease_ms  [10] count of timers that nobody waits for any more, then their members, then (type, body) each
-- Returns the reply topics, or '' where nobody asked for a reply
-- Errors: FENCED <epoch>, GAP <length>
local id = ARGV[1]
local h = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'length', 'seq', 'status', 'waiters', 'reply_to')
if h[1] ~= ARGV[2] or h[2] ~= ARGV[3] then return redis.error_reply('FENCED ' .. tostring(h[1])) end
local length, reply_to = tonumber(h[3]), h[7] or ''
if h[4] and tonumber(ARGV[5]) <= tonumber(h[4]) then return reply_to end
if tonumber(ARGV[4]) > length then return redis.error_reply('GAP ' .. length) end
local now, timers = now_ms(), tonumber(ARGV[10])
for i = 11 + timers, #ARGV, 2 do
  length = length + 1
  redis.call('XADD', KEYS[2], length .. '-' .. ARGV[2], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'status', 'completed', 'length', length, 'seq', ARGV[5], 'output', ARGV[8],
  'completed_at', whole(now))
redis.call('ZREM', KEYS[3], 'lease:' .. id, 'ready:' .. id)
for i = 11, 10 + timers do redis.call('ZREM', KEYS[3], ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[4] .. 'completed', '-inf', whole(now))
if reply_to ~= '' then
  -- Kept without an end until the reply is acknowledged: an outage of Kafka must not outlast it.
  redis.call('HSET', KEYS[1], 'retention', ARGV[6], 'journal_retention', ARGV[7])
  redis.call('ZADD', KEYS[3], whole(now + ARGV[9]), 'reply:' .. id)
  reindex(KEYS[4], id, h[5], 'completed', 9007199254740991)
else
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
  reindex(KEYS[4], id, h[5], 'completed', now + ARGV[6])
end
if h[6] then
  local outcome = '{"id":"' .. id .. '","output":' .. ARGV[8] .. '}'
  for channel in string.gmatch(h[6], '%S+') do redis.call('PUBLISH', channel, outcome) end
end
return reply_to
