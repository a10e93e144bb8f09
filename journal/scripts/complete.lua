-- include prelude
-- include objects
-- include finish
-- include tell
-- Records the one outcome of an invocation and tells those who wait for it.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] epoch  [3] token  [4] after  [5] seq  [6] retention_ms  [7] journal_retention_ms  [8] body of the output
--     [9] reply_lease_ms  [10] slot prefix  [11] key of the state, or '' where no entry does more than stand in the journal
--     [12] token for the next of the object, to be claimed at once, or ''  [13] lease_ms of that  [14] body of its attempt's entry
--     [15] what the entries say of promises (see effects.lua)
--     [16] how many slots there are, where this server has them all and tells callers at once, else 0
--     [17] count of timers that nobody waits for any more, then their members, then (type, body) each
-- Returns {reply topics, callers, next of the object or false, length, its claim or false, what callers have to do}, each of the
--     first two '' where there is none that has to be told; the claim is as `take` returns it, the last as `tell_all` does
-- Errors: FENCED <epoch>, GAP <length>
local id = ARGV[1]
local h = redis.call('HMGET', KEYS[1], 'status', 'waiters', 'reply_to', 'callers', 'outgoing', 'mode', 'service', 'key',
  'epoch', 'token', 'length', 'seq', 'worker')
if h[9] ~= ARGV[2] or h[10] ~= ARGV[3] then return redis.error_reply('FENCED ' .. tostring(h[9])) end
local length = tonumber(h[11])

-- A long journal is read in pages, by who claims it later.
local ENTRIES_MAX = 100

local function hand_over(told)
  local following = told[3]
  if not following or ARGV[12] == '' then return told end
  local keys = keys_of(ARGV[10], following[1])
  if tonumber(redis.call('HGET', keys[1], 'length')) >= ENTRIES_MAX then return told end
  -- include take
  told[5] = take(keys, ARGV[10], following[1], following[2], ARGV[12], h[13] or '', ARGV[13], ARGV[14], ENTRIES_MAX)
  return told
end

if h[12] and tonumber(ARGV[5]) <= tonumber(h[12]) then
  return hand_over({h[3] or '', h[4] or '', h[6] == 'exclusive' and handed(ARGV[10], h[7] .. '/' .. h[8], id, ARGV[12]), length, false, {}})
end
-- As in append.lua: the number tells what the length may not.
if tonumber(ARGV[4]) > length or ARGV[5] - (h[12] or 0) > 1 then return redis.error_reply('GAP ' .. length) end
local now, timers = now_ms(), tonumber(ARGV[17])
if ARGV[11] ~= '' then
  local due, state, outbox_lease = KEYS[3], ARGV[11], ARGV[9]
  local function time_ms() return now end
  -- include effects
  if not promises_are(ARGV[15]) then return redis.error_reply('GAP ' .. length) end
  h[5] = take_effect(18 + timers, id, length) or h[5]
end
for i = 18 + timers, #ARGV, 2 do
  length = length + 1
  redis.call('XADD', KEYS[2], length .. '-' .. ARGV[2], ARGV[i], ARGV[i + 1])
end
for i = 18, 17 + timers do redis.call('ZREM', KEYS[3], ARGV[i]) end
local due = {}
if ARGV[16] ~= '0' and h[4] and h[4] ~= '' then
  h[4], due = tell_all(ARGV[10], tonumber(ARGV[16]), h[4], ARGV[8], h[13], now)
end
local told = finish(KEYS, ARGV[10], id, h, ARGV[8], length, ARGV[5], now, ARGV[6], ARGV[7], ARGV[9])
told[5], told[6] = false, due
return hand_over(told)
