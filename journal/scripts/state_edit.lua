-- include workflow
-- Changes an object's state for people: refused while an exclusive handler holds the object or the workflow's run goes on, unless forced.
-- KEYS[1] object  KEYS[2] state  KEYS[3] invocation of the run that the workflow of that name would have  KEYS[4] status prefix
-- ARGV[1] 1 where forced  [2] id of that run, then set | clear | clear_all, name, value each
-- Returns 1, or the id of who holds the object
if ARGV[1] ~= '1' then
  local holder = redis.call('HGET', KEYS[1], 'holder')
  if holder then return holder end
  local status = redis.call('HGET', KEYS[3], 'status')
  if status and status ~= 'completed' then return ARGV[2] end
end
for i = 3, #ARGV, 3 do
  if ARGV[i] == 'set' then redis.call('HSET', KEYS[2], ARGV[i + 1], ARGV[i + 2]) end
  if ARGV[i] == 'clear' then redis.call('HDEL', KEYS[2], ARGV[i + 1]) end
  if ARGV[i] == 'clear_all' then redis.call('DEL', KEYS[2]) end
end
keep_as_run(KEYS[2], KEYS[3], false)
return 1
