-- Included after `prelude`: claims a ready invocation for a new attempt, if its epoch is still `expected`.
-- Returns false where it is not, else {epoch, {service, handler, key, failures, admitted_at, idempotency_key, mode, source, lost}, length,
-- entries, state or false}
local function take(keys, slot, id, expected, token, worker, lease_ms, body, entries_max)
  local h = redis.call('HMGET', keys[1], 'epoch', 'status', 'token', 'length')
  if not h[1] then return false end
  local epoch, length = tonumber(h[1]), tonumber(h[4])
  local again = epoch == tonumber(expected) + 1 and h[3] == token
  if not again then
    if h[2] ~= 'ready' or epoch ~= tonumber(expected) then return false end
    local now = now_ms()
    epoch, length = epoch + 1, length + 1
    redis.call('XADD', keys[2], length .. '-' .. epoch, 'attempt', body)
    redis.call('HSET', keys[1], 'status', 'running', 'epoch', epoch, 'token', token, 'worker', worker, 'length', length, 'seq', 0)
    reindex(keys[4], id, 'ready', 'running', now)
    redis.call('ZREM', keys[3], 'ready:' .. id)
    redis.call('ZADD', keys[3], whole(now + lease_ms), 'lease:' .. id)
  end
  local target = redis.call('HMGET', keys[1], 'service', 'handler', 'key', 'failures', 'admitted_at', 'idempotency_key', 'mode',
    'source', 'lost')
  local state = false
  if target[3] and target[3] ~= '' then
    -- include state
    state = state_of(slot, target[1] .. '/' .. target[3])
  end
  return {epoch, target, length, redis.call('XRANGE', keys[2], '-', '+', 'COUNT', entries_max), state}
end
