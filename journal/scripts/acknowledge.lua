-- include prelude
-- include objects
-- What invocations owed has reached where it had to: replies, callers, what they sent. With the last one of a completed
-- invocation its retention begins, and one that was killed gives up its object when its callees are killed.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix, and so on, four for each
-- ARGV[1] id  [2] slot prefix  [3] count of its members of due, then those, and so on for each
-- Returns for each the next of its object, as {id, epoch, service}, or false
local function acknowledge(keys, id, slot, first, last)
  local sent, told, killed = 0, false, false
  -- More than a thousand at once would not fit on Lua's stack.
  local sends = {}
  local function forget_sends()
    if #sends > 0 then sent = sent + redis.call('ZREM', keys[3], unpack(sends)) end
    sends = {}
  end
  for i = first, last do
    local kind = string.sub(ARGV[i], 1, 5)
    if kind == 'send:' then
      sends[#sends + 1] = ARGV[i]
      if #sends == 1000 then forget_sends() end
    elseif redis.call('ZREM', keys[3], ARGV[i]) == 1 then
      if kind == 'reply' then told = true else killed, sent = true, sent + 1 end
    end
  end
  forget_sends()
  if sent == 0 and not told then return false end
  if sent > 0 then
    if redis.call('EXISTS', keys[1]) == 0 then return false end
    redis.call('HINCRBY', keys[1], 'outgoing', -sent)
  end
  local h = redis.call('HMGET', keys[1], 'status', 'retention', 'journal_retention', 'outgoing', 'mode', 'service', 'key')
  local following = false
  if killed and h[5] == 'exclusive' then following = release(slot, h[6] .. '/' .. h[7], id, now_ms()) end
  if h[1] == 'completed' and h[2] and tonumber(h[4] or '0') <= 0 and (told or not redis.call('ZSCORE', keys[3], 'reply:' .. id)) then
    redis.call('PEXPIRE', keys[1], h[2])
    redis.call('PEXPIRE', keys[2], h[3])
    if h[5] == 'main' then
      redis.call('PEXPIRE', slot .. 'state:' .. h[6] .. '/' .. h[7], h[2])
      redis.call('PEXPIRE', slot .. 'promises:' .. h[6] .. '/' .. h[7], h[2])
    end
    redis.call('ZADD', keys[4] .. 'completed', whole(now_ms() + h[2]), id)
  end
  return following
end

local answers, at = {}, 1
for key = 1, #KEYS, 4 do
  local first = at + 3
  local last = at + 2 + ARGV[at + 2]
  answers[#answers + 1] = acknowledge({KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]}, ARGV[at], ARGV[at + 1], first, last)
  at = last + 1
end
return answers
