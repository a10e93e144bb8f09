-- prelude
-- Admits one invocation: its hash, its first entry, and its first lease where it starts at once. A known id changes nothing.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] token  [3] worker  [4] lease_ms  [5] not_before_ms (0: now)  [6] input body  [7] waiter channel or ''
--     [8] reply topic or ''  [9] waiters at most, then pairs of hash fields
-- Returns {'running', epoch} | {'scheduled', 0} | {'duplicate', status, output or false}
local id, waiter, reply_to = ARGV[1], ARGV[7], ARGV[8]
local known = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'status', 'output', 'waiters', 'reply_to')
if known[1] then
  if known[1] == '1' and known[2] == ARGV[2] and known[3] == 'running' then return {'running', 1} end
  if known[3] == 'completed' then
    if waiter ~= '' then redis.call('PUBLISH', waiter, '{"id":"' .. id .. '","output":' .. known[4] .. '}') end
    return {'duplicate', known[3], known[4]}
  end
  local function joined(list, item, items_max)
    if not list or list == '' then return item end
    local count = select(2, string.gsub(list, ' ', ' ')) + 1
    if string.find(' ' .. list .. ' ', ' ' .. item .. ' ', 1, true) or count >= items_max then return list end
    return list .. ' ' .. item
  end
  if waiter ~= '' then redis.call('HSET', KEYS[1], 'waiters', joined(known[5], waiter, tonumber(ARGV[9]))) end
  if reply_to ~= '' then redis.call('HSET', KEYS[1], 'reply_to', joined(known[6], reply_to, tonumber(ARGV[9]))) end
  return {'duplicate', known[3], false}
end
-- A journal may be kept for longer than its invocation: the new one begins its own.
redis.call('DEL', KEYS[2])
local now = now_ms()
local fields = {'length', 1, 'admitted_at', whole(now)}
for i = 10, #ARGV do fields[#fields + 1] = ARGV[i] end
if waiter ~= '' then fields[#fields + 1] = 'waiters'; fields[#fields + 1] = waiter end
if reply_to ~= '' then fields[#fields + 1] = 'reply_to'; fields[#fields + 1] = reply_to end
local not_before = tonumber(ARGV[5])
if not_before > now then
  redis.call('XADD', KEYS[2], '1-0', 'input', ARGV[6])
  redis.call('HSET', KEYS[1], 'status', 'scheduled', 'epoch', 0, unpack(fields))
  redis.call('ZADD', KEYS[4] .. 'scheduled', whole(now), id)
  redis.call('ZADD', KEYS[3], whole(not_before), 'start:' .. id)
  return {'scheduled', 0}
end
redis.call('XADD', KEYS[2], '1-1', 'input', ARGV[6])
redis.call('HSET', KEYS[1], 'status', 'running', 'epoch', 1, 'token', ARGV[2], 'worker', ARGV[3], unpack(fields))
redis.call('ZADD', KEYS[4] .. 'running', whole(now), id)
redis.call('ZADD', KEYS[3], whole(now + ARGV[4]), 'lease:' .. id)
return {'running', 1}
