-- include prelude
-- Renews a lease. One that ended but was not claimed yet is taken up again.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] epoch  [3] token  [4] lease_ms  [5] 1 where it begins to run alone: see `sweep`
-- Returns the journal's length, or -1 where another attempt owns the invocation or this one has left
local id = ARGV[1]
local h = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'status', 'length', 'worker')
if h[1] ~= ARGV[2] or h[2] ~= ARGV[3] or h[5] == '' then return -1 end
local now = now_ms()
if h[3] == 'ready' then
  redis.call('HSET', KEYS[1], 'status', 'running')
  redis.call('ZREM', KEYS[3], 'ready:' .. id)
  reindex(KEYS[4], id, 'ready', 'running', now)
elseif h[3] ~= 'running' then
  return -1
end
if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'alone', ARGV[2]) end
redis.call('ZADD', KEYS[3], whole(now + ARGV[4]), 'lease:' .. id)
return tonumber(h[4])
