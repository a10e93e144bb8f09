-- include prelude
-- Admits one invocation: its hash, its first entry, and its first lease where it starts at once. A known id changes nothing.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] token  [3] worker  [4] lease_ms  [5] not_before_ms (0: now)  [6] input body  [7] waiter channel or ''
--     [8] reply topic or ''  [9] waiters at most  [10] caller or ''  [11] mode: '' | exclusive | main
--     [12] Service/key of its object or workflow, or ''  [13] slot prefix  [14] 1 where the state is wanted  [15] queue at most
--     [16] id that it comes behind, or '', then pairs of hash fields
-- Returns {'running', epoch, state or false} | {'scheduled', 0} | {'pending', 0} | {'duplicate', status, output or false}
--     | {'full', 0}: the object's queue is, or was for what it comes behind, or that of the callers or reply topics of a known id
local id, waiter, reply_to, caller, target = ARGV[1], ARGV[7], ARGV[8], ARGV[10], ARGV[12]
local known = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'status', 'output', 'waiters', 'reply_to', 'callers')
if known[1] then
  if known[1] == '1' and known[2] == ARGV[2] and known[3] == 'running' then
    if target == '' or ARGV[14] ~= '1' then return {'running', 1, false} end
    -- include state
    return {'running', 1, state_of(ARGV[13], target)}
  end
  if known[3] == 'completed' then
    if waiter ~= '' then redis.call('PUBLISH', waiter, '{"id":"' .. id .. '","output":' .. known[4] .. '}') end
    return {'duplicate', known[3], known[4]}
  end
  local items_max = tonumber(ARGV[9])
  -- The list with the item in it; nil where it is full.
  local function joined(list, item)
    if not list or list == '' then return item end
    if string.find(' ' .. list .. ' ', ' ' .. item .. ' ', 1, true) then return list end
    if select(2, string.gsub(list, ' ', ' ')) + 1 >= items_max then return nil end
    return list .. ' ' .. item
  end
  local callers, replies = known[7], known[6]
  if caller ~= '' then callers = joined(callers, caller) end
  if reply_to ~= '' then replies = joined(replies, reply_to) end
  if callers == nil or replies == nil then return {'full', 0} end
  if caller ~= '' then redis.call('HSET', KEYS[1], 'callers', callers) end
  if reply_to ~= '' then redis.call('HSET', KEYS[1], 'reply_to', replies) end
  -- A waiter that is not told asks again by itself.
  if waiter ~= '' then redis.call('HSET', KEYS[1], 'waiters', joined(known[5], waiter) or known[5]) end
  return {'duplicate', known[3], false}
end
local now = now_ms()
local not_before = tonumber(ARGV[5])
local exclusive, later = ARGV[11] == 'exclusive', tonumber(ARGV[5]) > now
if exclusive and not later then
  if redis.call('LLEN', ARGV[13] .. 'queue:' .. target) >= tonumber(ARGV[15]) then return {'full', 0} end
  -- The queue may have moved since the one before was refused: this one would overtake it.
  if ARGV[16] ~= '' and redis.call('EXISTS', ARGV[13] .. 'invocation:' .. ARGV[16]) == 0 then return {'full', 0} end
end
-- A journal may be kept for longer than its invocation: the new one begins its own.
redis.call('DEL', KEYS[2])
local fields = {'length', 1, 'admitted_at', whole(now)}
for i = 17, #ARGV do fields[#fields + 1] = ARGV[i] end
local function field(name, value)
  if value ~= '' then fields[#fields + 1] = name; fields[#fields + 1] = value end
end
field('waiters', waiter)
field('reply_to', reply_to)
field('callers', caller)
field('mode', ARGV[11])
if ARGV[11] == 'main' then
  -- What came before the run, such as promises that were completed already, is kept as long as the run.
  redis.call('PERSIST', ARGV[13] .. 'state:' .. target)
  redis.call('PERSIST', ARGV[13] .. 'promises:' .. target)
end
local function wait(status)
  redis.call('XADD', KEYS[2], '1-0', 'input', ARGV[6])
  redis.call('HSET', KEYS[1], 'status', status, 'epoch', 0, unpack(fields))
  redis.call('ZADD', KEYS[4] .. status, whole(now), id)
  return {status, 0}
end
if later then
  redis.call('ZADD', KEYS[3], whole(not_before), 'start:' .. id)
  return wait('scheduled')
end
if exclusive then
  -- include objects
  if not enter(ARGV[13], target, id) then return wait('pending') end
end
redis.call('XADD', KEYS[2], '1-1', 'input', ARGV[6])
redis.call('HSET', KEYS[1], 'status', 'running', 'epoch', 1, 'token', ARGV[2], 'worker', ARGV[3], unpack(fields))
redis.call('ZADD', KEYS[4] .. 'running', whole(now), id)
redis.call('ZADD', KEYS[3], whole(now + ARGV[4]), 'lease:' .. id)
if target == '' or ARGV[14] ~= '1' then return {'running', 1, false} end
-- include state
return {'running', 1, state_of(ARGV[13], target)}
