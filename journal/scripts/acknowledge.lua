-- include prelude
-- include objects
-- What an invocation owed has reached where it had to: its reply, its callers, what it sent. With the last one of a completed
-- invocation its retention begins, and one that was killed gives up its object when its callees are killed.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] slot prefix, then members of due
-- Returns the next of the object, as {id, epoch, service}, or false
local id, sent, told, killed = ARGV[1], 0, false, false
-- More than a thousand at once would not fit on Lua's stack.
local sends = {}
local function forget_sends()
  if #sends > 0 then sent = sent + redis.call('ZREM', KEYS[3], unpack(sends)) end
  sends = {}
end
for i = 3, #ARGV do
  local kind = string.sub(ARGV[i], 1, 5)
  if kind == 'send:' then
    sends[#sends + 1] = ARGV[i]
    if #sends == 1000 then forget_sends() end
  elseif redis.call('ZREM', KEYS[3], ARGV[i]) == 1 then
    if kind == 'reply' then told = true else killed, sent = true, sent + 1 end
  end
end
forget_sends()
if sent == 0 and not told then return false end
if sent > 0 then
  if redis.call('EXISTS', KEYS[1]) == 0 then return false end
  redis.call('HINCRBY', KEYS[1], 'outgoing', -sent)
end
local h = redis.call('HMGET', KEYS[1], 'status', 'retention', 'journal_retention', 'outgoing', 'mode', 'service', 'key')
local following = false
if killed and h[5] == 'exclusive' then following = release(ARGV[2], h[6] .. '/' .. h[7], id, now_ms()) end
if h[1] == 'completed' and h[2] and tonumber(h[4] or '0') <= 0 and (told or not redis.call('ZSCORE', KEYS[3], 'reply:' .. id)) then
  redis.call('PEXPIRE', KEYS[1], h[2])
  redis.call('PEXPIRE', KEYS[2], h[3])
  if h[5] == 'main' then
    redis.call('PEXPIRE', ARGV[2] .. 'state:' .. h[6] .. '/' .. h[7], h[2])
    redis.call('PEXPIRE', ARGV[2] .. 'promises:' .. h[6] .. '/' .. h[7], h[2])
  end
  redis.call('ZADD', KEYS[4] .. 'completed', whole(now_ms() + h[2]), id)
end
return following
