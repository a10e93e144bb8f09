-- Included where entries are written: what they do beside standing in the journal. Wants `KEYS`, `due`, `outbox_lease`, `state`, `time_ms`.
-- Where a command of another's doing stands is kept under `c:<command index>` until it has its one result, and `1` after that:
-- what was told of one that a failover has lost must not be taken for the result of another, nor for that of its repetition.
local ANSWERED = {call = true, attach = true, promise = true}
local OUTGOING = {call = true, send = true, attach = true, resolve = true, cancel_invocation = true, cancel_child = true, promise = true}

-- A state's name, and its value as it is kept: JSON, or `base64:` and the text.
local function named(body)
  local at, last = string.find(body, ',"value":', 1, true)
  if at then return cjson.decode(string.sub(body, 1, at - 1) .. '}').name, string.sub(body, last + 1, -2) end
  local fields = cjson.decode(body)
  return fields.name, 'base64:' .. (fields.base64 or '')
end

-- Whether promises are as entries say, which a failover may have changed since it was asked for: '' or JSON, {name, the command
-- that says it, whether that command completed it} each.
local function promises_are(said)
  if said == '' then return true end
  local promises = string.gsub(state, '}:state:', '}:promises:', 1)
  for _, each in ipairs(cjson.decode(said)) do
    local known = redis.call('HGET', promises, '=' .. each[1])
    if not known or (string.sub(known, 1, #each[2] + 1) == each[2] .. '\n') ~= each[3] then return false end
  end
  return true
end

local function effect(kind, body)
  if kind == 'awakeable' then
    -- For `deliver`: a command of this index may be completed by whoever knows its name.
    redis.call('HSET', KEYS[1], 'a:' .. string.match(body, '"index":(%d+)'), 1)
  elseif kind == 'set' then
    redis.call('HSET', state, named(body))
  elseif kind == 'clear' then
    redis.call('HDEL', state, (named(body)))
  elseif kind == 'clear_all' then
    redis.call('DEL', state)
  end
end

-- Has the entries in ARGV from `first` on, type and body each, do what they do; the one before them stands at `position`.
-- Returns how many of the invocation's entries have not reached what they are for, or nil where none of these has to.
local function take_effect(first, id, position)
  local deadlines, places, at = {}, {}, nil
  for i = first, #ARGV, 2 do
    position = position + 1
    if OUTGOING[ARGV[i]] then
      at = at or string.format('%.0f', time_ms() + outbox_lease)
      deadlines[#deadlines + 1] = at
      deadlines[#deadlines + 1] = 'send:' .. id .. ':' .. position
      if ANSWERED[ARGV[i]] then
        places[#places + 1] = 'c:' .. string.match(ARGV[i + 1], '^{"index":(%d+)')
        places[#places + 1] = position
      end
    else
      effect(ARGV[i], ARGV[i + 1])
    end
  end
  if not at then return nil end
  redis.call('ZADD', due, unpack(deadlines))
  if #places > 0 then redis.call('HSET', KEYS[1], unpack(places)) end
  return redis.call('HINCRBY', KEYS[1], 'outgoing', #deadlines / 2)
end
