-- include prelude
-- Brings answers of what it called, attached to or waited for into a journal. Not fenced; each is known once, by its command.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] prefix of the hint channels  [3] a worker that needs no hint, or '', then (command index, position, body)
--     each: where the command stands, and that of the completion
-- Returns {result each, false | {'resume', epoch, service} | {'hint', worker}}; a result is 'delivered', 'known',
--     'completed', 'unknown' or 'gap', as with `deliver`
local id, results = ARGV[1], {}
local h = redis.call('HMGET', KEYS[1], 'status', 'epoch', 'length', 'worker', 'service')
local refused = not h[2] and 'unknown' or h[1] == 'completed' and 'completed'
local length, known = tonumber(h[3]), tonumber(h[3])
local names, at, new = {}, {}, {'length', 0}
if not refused then
  for i = 4, #ARGV, 3 do names[#names + 1] = 'c:' .. ARGV[i] end
  for n, place in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do at[names[n]] = place end
end
for i = 4, #ARGV, 3 do
  local name, result = 'c:' .. ARGV[i], refused
  if not result and at[name] == '1' then result = 'known' end
  if not result and at[name] ~= ARGV[i + 1] then result = 'gap' end
  if not result then
    length, at[name], result = length + 1, '1', 'delivered'
    new[#new + 1] = name
    new[#new + 1] = 1
    redis.call('XADD', KEYS[2], length .. '-' .. h[2], 'completion', ARGV[i + 2])
  end
  results[#results + 1] = result
end
if refused or length == known then return {results, false} end
new[2] = length
redis.call('HSET', KEYS[1], unpack(new))
if h[1] == 'suspended' then
  make_ready(KEYS, id, h[1], now_ms())
  return {results, {'resume', h[2], h[5]}}
end
if h[1] == 'running' then
  if h[4] ~= ARGV[3] then redis.call('PUBLISH', ARGV[2] .. h[4], id) end
  return {results, {'hint', h[4]}}
end
return {results, false}
