-- include prelude
-- include objects
-- Admits an invocation whose journal has begun: its input, and what is kept of another one's. A known id changes nothing.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] mode: '' | exclusive  [3] Service/key of its object or workflow, or ''  [4] slot prefix  [5] queue at most
--     [6] how many entries, then type and body of each, then pairs of hash fields
-- Returns {'delivered', {'resume', 0, service} | false, false} | {'known'} | {'full'}: the object's queue is
local id, target, slot, count = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[6])
if redis.call('EXISTS', KEYS[1]) == 1 then return {'known'} end
local exclusive = ARGV[2] == 'exclusive'
if exclusive and redis.call('LLEN', slot .. 'queue:' .. target) >= tonumber(ARGV[5]) then return {'full'} end
local now = now_ms()
redis.call('DEL', KEYS[2])
for i = 1, count do redis.call('XADD', KEYS[2], i .. '-0', ARGV[5 + 2 * i], ARGV[6 + 2 * i]) end
redis.call('HSET', KEYS[1], 'epoch', 0, 'length', count, 'admitted_at', whole(now))
for i = 7 + 2 * count, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'mode', ARGV[2]) end
if exclusive and not enter(slot, target, id) then
  redis.call('HSET', KEYS[1], 'status', 'pending')
  reindex(KEYS[4], id, false, 'pending', now)
  return {'delivered', false, false}
end
make_ready(KEYS, id, false, now)
return {'delivered', {'resume', '0', redis.call('HGET', KEYS[1], 'service')}, false}
