-- Changes an object's state for people: refused while an exclusive handler holds the object, unless forced.
-- KEYS[1] object  KEYS[2] state
-- ARGV[1] 1 where forced, then set | clear | clear_all, name, value each
-- Returns 1, or the id of who holds the object
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and ARGV[1] ~= '1' then return holder end
for i = 2, #ARGV, 3 do
  if ARGV[i] == 'set' then redis.call('HSET', KEYS[2], ARGV[i + 1], ARGV[i + 2]) end
  if ARGV[i] == 'clear' then redis.call('HDEL', KEYS[2], ARGV[i + 1]) end
  if ARGV[i] == 'clear_all' then redis.call('DEL', KEYS[2]) end
end
return 1
