-- include prelude
-- include workflow
-- Durable promises of one workflow key: look, complete once, wait.
-- KEYS[1] promises  KEYS[2] due  KEYS[3] status prefix
-- ARGV[1] peek | complete | await  [2] name  [3] complete: the outcome's JSON  [4] complete: by whom; await: invocation id
--     [5] await: command index  [6] slot prefix  [7] prefix of the hint channels  [8] retention_ms of promises of a workflow
--     without a run  [9] id of the workflow's run  [10] waits of one promise at most  [11] await: where the wait stands in its journal, or 0
-- A promise is kept as `<by>\n<outcome>`, its waits under `?<name>` as `<id>:<index>` each.
-- Returns {'open'} | {'is', outcome, by} for peek; {'done' | 'taken', {action, ...}} for complete; 
--     {'waits', {}} | {'told', {action, ...}} | {'full', {}} for await;
--     an action is {'resume', id, epoch, service} | {'hint', id, worker}
-- Errors: GAP <length>, for await: the store has lost the wait, and must not answer it.
local what, name, slot = ARGV[1], ARGV[2], ARGV[6]
local known = redis.call('HGET', KEYS[1], '=' .. name)
local run = slot .. 'invocation:' .. ARGV[9]
local actions = {}

local function tell(id, index, outcome)
  local keys = {slot .. 'invocation:' .. id, slot .. 'journal:' .. id, KEYS[2], KEYS[3]}
  local h = redis.call('HMGET', keys[1], 'epoch', 'status', 'length', 'worker', 'service', 'c:' .. index)
  if not h[1] or h[2] == 'completed' or h[6] == '1' then return end
  local now, length = now_ms(), tonumber(h[3]) + 1
  redis.call('XADD', keys[2], length .. '-' .. h[1], 'completion', '{"index":' .. index .. ',"at":' .. whole(now) .. ',' .. string.sub(outcome, 2))
  redis.call('HSET', keys[1], 'length', length, 'c:' .. index, 1)
  if h[2] == 'suspended' then
    make_ready(keys, id, h[2], now)
    actions[#actions + 1] = {'resume', id, h[1], h[5]}
  elseif h[2] == 'running' then
    redis.call('PUBLISH', ARGV[7] .. h[4], id)
    actions[#actions + 1] = {'hint', id, h[4]}
  end
end

local function parts(text)
  local at = string.find(text, '\n', 1, true)
  return string.sub(text, 1, at - 1), string.sub(text, at + 1)
end

if what == 'peek' then
  if not known then return {'open'} end
  local by, outcome = parts(known)
  return {'is', outcome, by}
end
if what == 'complete' then
  if known then return {parts(known) == ARGV[4] and 'done' or 'taken', actions} end
  redis.call('HSET', KEYS[1], '=' .. name, ARGV[4] .. '\n' .. ARGV[3])
  for wait in string.gmatch(redis.call('HGET', KEYS[1], '?' .. name) or '', '%S+') do
    local id, index = string.match(wait, '^([^:]+):(%d+)$')
    tell(id, index, ARGV[3])
  end
  redis.call('HDEL', KEYS[1], '?' .. name)
  keep_as_run(KEYS[1], run, ARGV[8])
  return {'done', actions}
end
local h = redis.call('HMGET', slot .. 'invocation:' .. ARGV[4], 'status', 'length', 'c:' .. ARGV[5])
if h[2] and ARGV[11] ~= '0' and h[3] ~= '1' and h[3] ~= ARGV[11] then return redis.error_reply('GAP ' .. h[2]) end
if known then
  local _, outcome = parts(known)
  tell(ARGV[4], ARGV[5], outcome)
  return {'told', actions}
end
local waits = redis.call('HGET', KEYS[1], '?' .. name) or ''
local wait = ARGV[4] .. ':' .. ARGV[5]
if string.find(' ' .. waits .. ' ', ' ' .. wait .. ' ', 1, true) then return {'waits', actions} end
if not h[1] or h[1] == 'completed' then return {'waits', actions} end
if select(2, string.gsub(waits, '%S+', '')) >= tonumber(ARGV[10]) then return {'full', actions} end
redis.call('HSET', KEYS[1], '?' .. name, waits == '' and wait or (waits .. ' ' .. wait))
keep_as_run(KEYS[1], run, ARGV[8])
return {'waits', actions}
