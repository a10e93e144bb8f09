-- Included after `prelude` and `objects`: tells callers an outcome, each in its own journal, by who completes what they called.
-- Only on a server that has all slots: these are of any of them.

-- Writes the completion of one caller's command, if that waits for it. Returns whether it is known there now, or never can
-- be, and what is to be done now: {'resume', id, epoch, service} | {'hint', id, worker} | nil
local function tell(namespace, slots, caller, output, here, now)
  local id, place, index, position = string.match(caller, '^(inv_(%x%x%x)%x+):(%d+):(%d+)$')
  if not id then return false end
  local keys = keys_of(namespace .. '{' .. whole(tonumber(place, 16) % slots) .. '}:', id)
  -- Called with care: the caller's keys may be damaged, and what was called has its outcome all the same.
  local h = redis.pcall('HMGET', keys[1], 'status', 'epoch', 'length', 'worker', 'service', 'c:' .. index)
  if h.err then return false end
  if not h[1] or h[1] == 'completed' or h[6] == '1' then return true end
  local length = tonumber(h[3] or '')
  if h[6] ~= position or not length or not h[2] then return false end
  length = length + 1
  local written = redis.pcall('XADD', keys[2], length .. '-' .. h[2], 'completion', '{"index":' .. index .. ',' .. string.sub(output, 2))
  if type(written) == 'table' then return false end
  redis.call('HSET', keys[1], 'length', length, 'c:' .. index, 1)
  if h[1] == 'suspended' then
    make_ready(keys, id, h[1], now)
    return true, {'resume', id, h[2], h[5]}
  end
  if h[1] ~= 'running' or not h[4] then return true end
  if h[4] ~= here then redis.call('PUBLISH', namespace .. 'hints:' .. h[4], id) end
  return true, {'hint', id, h[4]}
end

-- At most so many, and about so many bytes of outcomes: what one script may do. The others are told one by one.
local TOLD_MAX, TOLD_BYTES_MAX = 100, 4000000

-- Tells all of them. Returns those that have to be told in another way, or '', and what is to be done now.
local function tell_all(slot, slots, callers, output, here, now)
  local namespace, left, due, count = string.match(slot, '^(.*){%d+}:$'), {}, {}, 0
  for caller in string.gmatch(callers, '%S+') do
    local known, action = false, nil
    if count < TOLD_MAX and count * #output <= TOLD_BYTES_MAX then
      known, action = tell(namespace, slots, caller, output, here, now)
    end
    count = count + 1
    if not known then left[#left + 1] = caller end
    if action then due[#due + 1] = action end
  end
  return table.concat(left, ' '), due
end
