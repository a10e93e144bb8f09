-- Removes journals of completed invocations whose outcomes stay, those that expire first before others.
-- KEYS[1] index of completed invocations  KEYS[2] status prefix
-- ARGV[1] slot prefix  [2] score to go on from  [3] how many of that score were looked at  [4] invocations at most
-- Returns {how many journals there were, score to go on from, how many of that score were looked at}, or {how many} at the end
-- Invocations that owe something stand behind all others, at a score without an end, and are left out.
local rows = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], '(9007199254740991', 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
local removed, last, same = 0, ARGV[2], tonumber(ARGV[3])
for i = 1, #rows, 2 do
  if rows[i + 1] ~= last then last, same = rows[i + 1], 0 end
  same = same + 1
  -- One that expired and was admitted anew may stand here until the next sweep.
  local status = redis.call('HGET', ARGV[1] .. 'invocation:' .. rows[i], 'status')
  if not status or status == 'completed' then
    removed = removed + redis.call('UNLINK', ARGV[1] .. 'journal:' .. rows[i])
  end
end
if #rows < 2 * tonumber(ARGV[4]) then return {removed} end
return {removed, last, same}
