-- Looks at an invocation, and asks to be told its outcome where it has none yet.
-- KEYS[1] invocation
-- ARGV[1] channel  [2] waiters at most
-- Returns false where there is no such invocation, else {status, output or false}
local h = redis.call('HMGET', KEYS[1], 'status', 'output', 'waiters')
if not h[1] then return false end
if h[1] ~= 'completed' then
  local waiters = h[3] or ''
  local count = select(2, string.gsub(waiters, '%S+', ''))
  if count < tonumber(ARGV[2]) and not string.find(' ' .. waiters .. ' ', ' ' .. ARGV[1] .. ' ', 1, true) then
    redis.call('HSET', KEYS[1], 'waiters', waiters == '' and ARGV[1] or (waiters .. ' ' .. ARGV[1]))
  end
end
return {h[1], h[2]}
