-- Ends the lease of an invocation whose worker is known to be dead; the next sweep makes it ready.
-- KEYS[1] invocation  KEYS[2] due
-- ARGV[1] id  [2] worker
-- Returns 1 where that worker held it, else 0
local h = redis.call('HMGET', KEYS[1], 'status', 'worker')
if h[1] ~= 'running' or h[2] ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[2], 0, 'lease:' .. ARGV[1])
return 1
