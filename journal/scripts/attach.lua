-- Looks at an invocation, and asks to be told its outcome where it has none yet.
-- KEYS[1] invocation
-- ARGV[1] channel or ''  [2] waiters at most  [3] caller or ''
-- Returns false where there is no such invocation, else {status, output or false, 1 where it will be told, else 0}
local h = redis.call('HMGET', KEYS[1], 'status', 'output', 'waiters', 'callers')
if not h[1] then return false end
local told = 1
if h[1] ~= 'completed' then
  local function join(field, list, item)
    list = list or ''
    if item == '' or string.find(' ' .. list .. ' ', ' ' .. item .. ' ', 1, true) then return end
    local count = select(2, string.gsub(list, '%S+', ''))
    if count >= tonumber(ARGV[2]) then
      told = 0
    else
      redis.call('HSET', KEYS[1], field, list == '' and item or (list .. ' ' .. item))
    end
  end
  join('waiters', h[3], ARGV[1])
  join('callers', h[4], ARGV[3])
end
return {h[1], h[2], told}
