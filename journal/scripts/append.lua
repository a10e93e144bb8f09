-- Appends entries to a journal, if this attempt still owns it. The hot path: three commands for one entry.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due; with 2 and 3 also KEYS[4] state of the object  KEYS[5] status prefix
-- ARGV[1] epoch  [2] token  [3] after: entries that the caller knows  [4] seq: this attempt's n-th append
--     [5] 1: consecutive failures start from 0 again, 2: an entry does more than stand in the journal, 3: both, else 0
--     [6] count of timers, then (member, delay_ms) each, then (type, body) each; with 2, before all that: id,
--     outbox_lease_ms, what the entries say of promises (see effects.lua)
-- Returns the new length, or {length, entries past `after`} where others appended meanwhile or this is a resend
-- Errors: FENCED <epoch>: another attempt owns it. GAP <length>: the store has lost what the caller knows, also where as
--     many entries have come since: then it lacks the caller's last append. Likewise where it has lost a promise.
local h = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'length', 'seq')
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then return redis.error_reply('FENCED ' .. tostring(h[1])) end
local length, after = tonumber(h[3]), tonumber(ARGV[3])
local new = ARGV[4] - (h[4] or 0)
-- An earlier number is a repeat, too: one that stayed on a connection which was given up.
if new <= 0 then return {length, redis.call('XRANGE', KEYS[2], after + 1, '+')} end
if after > length or new > 1 then return redis.error_reply('GAP ' .. length) end
local before, timers, first = length, tonumber(ARGV[6]), 7
if ARGV[5] == '2' or ARGV[5] == '3' then
  first = 10
  local due, state, id, outbox_lease = KEYS[3], KEYS[4], ARGV[7], ARGV[8]
  local function time_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
  end
  -- include effects
  if not promises_are(ARGV[9]) then return redis.error_reply('GAP ' .. length) end
  take_effect(first + 2 * timers, id, length)
end
for i = first + 2 * timers, #ARGV, 2 do
  length = length + 1
  redis.call('XADD', KEYS[2], length .. '-' .. ARGV[1], ARGV[i], ARGV[i + 1])
end
if ARGV[5] == '1' or ARGV[5] == '3' then
  redis.call('HSET', KEYS[1], 'length', length, 'seq', ARGV[4], 'failures', 0, 'lost', 0)
else
  redis.call('HSET', KEYS[1], 'length', length, 'seq', ARGV[4])
end
if timers > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  for i = first, first - 1 + 2 * timers, 2 do
    redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[i + 1]), ARGV[i])
  end
end
if before == after then return length end
return {length, redis.call('XRANGE', KEYS[2], after + 1, '+')}
