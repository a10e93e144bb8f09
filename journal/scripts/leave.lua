-- include prelude
-- Ends an attempt without an outcome: suspended, backing off, paused, or ready for another worker.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] epoch  [3] token  [4] after  [5] seq  [6] status: suspended | backing-off | paused | ready
--     [7] kind of deadline: retry | wake | ''  [8] delay_ms of it  [9] failures to add  [10] last failure, or ''
--     [11] 1 where it must not leave if there is anything past `after`
--     [12] key of the state, or '' where no entry does more than stand in the journal  [13] outbox_lease_ms
--     [14] what the entries say of promises (see effects.lua)
--     [15] count of timers, then (member, delay_ms) each, then (type, body) each
-- Returns 0 where it left, else {length, entries past `after`}
-- Errors: FENCED <epoch>, GAP <length>
local id, status = ARGV[1], ARGV[6]
local h = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'length', 'seq', 'status', 'cancelled')
if h[1] ~= ARGV[2] or h[2] ~= ARGV[3] then return redis.error_reply('FENCED ' .. tostring(h[1])) end
if h[4] and tonumber(ARGV[5]) <= tonumber(h[4]) then return 0 end
local length, after = tonumber(h[3]), tonumber(ARGV[4])
if after > length then return redis.error_reply('GAP ' .. length) end
-- As in append.lua. Who leaves for other reasons may have failed to write.
if ARGV[11] == '1' and ARGV[5] - (h[4] or 0) > 1 then return redis.error_reply('GAP ' .. length) end
if ARGV[11] == '1' and length > after then return {length, redis.call('XRANGE', KEYS[2], after + 1, '+')} end
-- A cancellation that the attempt has not seen waits neither for a retry nor for a person.
local cancelled = status ~= 'suspended' and status ~= 'ready' and tonumber(h[6] or '0') > after
if cancelled then status = 'ready' end
local timers = tonumber(ARGV[15])
local now = now_ms()
if ARGV[12] ~= '' then
  local due, state, outbox_lease = KEYS[3], ARGV[12], ARGV[13]
  local function time_ms() return now end
  -- include effects
  if not promises_are(ARGV[14]) then return redis.error_reply('GAP ' .. length) end
  take_effect(16 + 2 * timers, id, length)
end
for i = 16 + 2 * timers, #ARGV, 2 do
  length = length + 1
  redis.call('XADD', KEYS[2], length .. '-' .. ARGV[2], ARGV[i], ARGV[i + 1])
end
for i = 16, 15 + 2 * timers, 2 do redis.call('ZADD', KEYS[3], whole(now + ARGV[i + 1]), ARGV[i]) end
-- Without a worker no renewal that comes late takes it up again.
redis.call('HSET', KEYS[1], 'status', status, 'length', length, 'seq', ARGV[5], 'worker', '')
if cancelled then
  redis.call('HSET', KEYS[1], 'failures', 0, 'lost', 0)
elseif ARGV[9] ~= '0' then
  redis.call('HINCRBY', KEYS[1], 'failures', ARGV[9])
  -- It failed, and its worker lived.
  redis.call('HSET', KEYS[1], 'lost', 0)
end
if ARGV[10] ~= '' then redis.call('HSET', KEYS[1], 'last_failure', ARGV[10]) end
if status == 'ready' then
  make_ready(KEYS, id, h[5], now)
  -- Nobody was told to go on with it: the next sweep does.
  if cancelled then redis.call('ZADD', KEYS[3], whole(now), 'ready:' .. id) end
  return 0
end
redis.call('ZREM', KEYS[3], 'lease:' .. id, 'ready:' .. id)
reindex(KEYS[4], id, h[5], status, now)
if ARGV[7] ~= '' then redis.call('ZADD', KEYS[3], whole(now + ARGV[8]), ARGV[7] .. ':' .. id) end
return 0
