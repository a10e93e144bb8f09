-- Included: objects and their queues. `slot` is the slot's prefix, such as `ns:{17}:`; `target` is `Service/key`.
local function keys_of(slot, id)
  return {slot .. 'invocation:' .. id, slot .. 'journal:' .. id, slot .. 'due', slot .. 'status:'}
end

-- Gives the object to the next in its queue, if `id` holds it. Returns false, or {id, epoch, service} of one that is ready now.
local function release(slot, target, id, now)
  local object, queue = slot .. 'object:' .. target, slot .. 'queue:' .. target
  if redis.call('HGET', object, 'holder') ~= id then
    -- It waited, and will not any more.
    redis.call('LREM', queue, 1, id)
    return false
  end
  local following = redis.call('LPOP', queue)
  while following do
    local keys = keys_of(slot, following)
    local h = redis.call('HMGET', keys[1], 'status', 'epoch', 'service')
    if h[1] == 'pending' then
      redis.call('HSET', object, 'holder', following)
      make_ready(keys, following, 'pending', now)
      return {following, h[2], h[3]}
    end
    -- A failover may have lost the invocation and kept its place.
    following = redis.call('LPOP', queue)
  end
  redis.call('DEL', object)
  return false
end

-- Whether `id` holds the object now; else it waits in the queue, at its end.
local function enter(slot, target, id)
  local object = slot .. 'object:' .. target
  local holder = redis.call('HGET', object, 'holder')
  if holder and holder ~= id and redis.call('EXISTS', slot .. 'invocation:' .. holder) == 1 then
    redis.call('RPUSH', slot .. 'queue:' .. target, id)
    return false
  end
  redis.call('HSET', object, 'holder', id)
  return true
end

-- Who holds the object after `id` and is ready to be claimed, or was by `token`: for a repeated `release`.
local function handed(slot, target, id, token)
  local holder = redis.call('HGET', slot .. 'object:' .. target, 'holder')
  if not holder or holder == id then return false end
  local h = redis.call('HMGET', slot .. 'invocation:' .. holder, 'status', 'epoch', 'service', 'token')
  if token ~= '' and h[4] == token then return {holder, tostring(tonumber(h[2]) - 1), h[3]} end
  return h[1] == 'ready' and {holder, h[2], h[3]}
end
