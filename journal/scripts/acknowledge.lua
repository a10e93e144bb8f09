-- prelude
-- The reply of a completed invocation is acknowledged by Kafka: its retention begins.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id
-- Returns 1, or 0 where it was acknowledged before
local id = ARGV[1]
if redis.call('ZREM', KEYS[3], 'reply:' .. id) == 0 then return 0 end
local h = redis.call('HMGET', KEYS[1], 'retention', 'journal_retention')
if h[1] then
  redis.call('PEXPIRE', KEYS[1], h[1])
  redis.call('PEXPIRE', KEYS[2], h[2])
  redis.call('ZADD', KEYS[4] .. 'completed', whole(now_ms() + h[1]), id)
end
return 1
