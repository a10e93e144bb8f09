-- Ends the lease of an invocation whose worker is known to be dead; the next sweep makes it ready, also one that holds
-- leases: the score 0 tells it that the lease did not end by itself.
-- KEYS[1] invocation  KEYS[2] due  KEYS[3] status prefix
-- ARGV[1] id  [2] worker
-- Returns 1 where that worker held it, else 0
local h = redis.call('HMGET', KEYS[1], 'status', 'worker')
if h[1] ~= 'running' or h[2] ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[2], 0, 'lease:' .. ARGV[1])
return 1
