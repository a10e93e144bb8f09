-- include prelude
-- Claims a ready invocation for a new attempt, if its epoch is still the one that the resume record ends.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] expected epoch  [3] token  [4] worker  [5] lease_ms  [6] body of the attempt's entry  [7] entries at most
--     [8] slot prefix
-- Returns false where it is stale, else {epoch, {service, handler, key, failures, admitted_at, idempotency_key, mode, source}, length,
--     entries, state or false}
local id = ARGV[1]
local h = redis.call('HMGET', KEYS[1], 'epoch', 'status', 'token', 'length')
if not h[1] then return false end
local epoch, length = tonumber(h[1]), tonumber(h[4])
local again = epoch == tonumber(ARGV[2]) + 1 and h[3] == ARGV[3]
if not again then
  if h[2] ~= 'ready' or epoch ~= tonumber(ARGV[2]) then return false end
  local now = now_ms()
  epoch, length = epoch + 1, length + 1
  redis.call('XADD', KEYS[2], length .. '-' .. epoch, 'attempt', ARGV[6])
  redis.call('HSET', KEYS[1], 'status', 'running', 'epoch', epoch, 'token', ARGV[3], 'worker', ARGV[4], 'length', length,
    'seq', 0)
  reindex(KEYS[4], id, 'ready', 'running', now)
  redis.call('ZREM', KEYS[3], 'ready:' .. id)
  redis.call('ZADD', KEYS[3], whole(now + ARGV[5]), 'lease:' .. id)
end
local target = redis.call('HMGET', KEYS[1], 'service', 'handler', 'key', 'failures', 'admitted_at', 'idempotency_key', 'mode',
  'source')
local state = false
if target[3] and target[3] ~= '' then
  -- include state
  state = state_of(ARGV[8], target[1] .. '/' .. target[3])
end
return {epoch, target, length, redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[7]), state}
