-- Included after `prelude` and `objects`: the one end of every invocation.
-- `h` has the hash's 'status', 'waiters', 'reply_to', 'callers', 'outgoing', 'mode', 'service', 'key', in this order.
-- The journal has its last entries already. With `holds` it keeps its object, until its callees are killed.
-- Returns {reply topics, callers, next of the object or false, length}
local function finish(keys, slot, id, h, output, length, seq, now, retention, journal_retention, reply_lease, holds)
  local reply_to, callers = h[3] or '', h[4] or ''
  redis.call('ZREM', keys[3], 'lease:' .. id, 'ready:' .. id)
  if h[1] ~= 'running' and h[1] ~= 'ready' then redis.call('ZREM', keys[3], 'retry:' .. id, 'wake:' .. id, 'start:' .. id) end
  local told = reply_to == '' and callers == ''
  local main = h[6] == 'main'
  local end_of_it = {'status', 'completed', 'output', output, 'completed_at', whole(now), 'length', length, 'seq', seq}
  if told and (not h[5] or tonumber(h[5]) <= 0) then
    redis.call('HSET', keys[1], unpack(end_of_it))
    redis.call('PEXPIRE', keys[1], retention)
    redis.call('PEXPIRE', keys[2], journal_retention)
    reindex(keys[4], id, h[1], 'completed', now + retention)
    if main then
      redis.call('PEXPIRE', slot .. 'state:' .. h[7] .. '/' .. h[8], retention)
      redis.call('PEXPIRE', slot .. 'promises:' .. h[7] .. '/' .. h[8], retention)
    end
  else
    -- Kept without an end until all that it owes is acknowledged: an outage of Kafka must not outlast it.
    redis.call('HSET', keys[1], 'retention', retention, 'journal_retention', journal_retention, unpack(end_of_it))
    if not told then redis.call('ZADD', keys[3], whole(now + reply_lease), 'reply:' .. id) end
    reindex(keys[4], id, h[1], 'completed', 9007199254740991)
  end
  if h[2] and h[2] ~= '' then
    local outcome = '{"id":"' .. id .. '","output":' .. output .. '}'
    for channel in string.gmatch(h[2], '%S+') do redis.call('PUBLISH', channel, outcome) end
  end
  local following = false
  if h[6] == 'exclusive' and not holds then following = release(slot, h[7] .. '/' .. h[8], id, now) end
  return {reply_to, callers, following, length}
end
