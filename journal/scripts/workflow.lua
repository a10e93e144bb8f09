-- Included: what belongs to a workflow is kept as long as its run. `run` is the key of the run's hash.
local function keep_as_run(key, run, without_run_ms)
  local left = redis.call('PTTL', run)
  if left >= 0 then
    redis.call('PEXPIRE', key, left)
  elseif left == -2 and without_run_ms and redis.call('PTTL', key) == -1 then
    redis.call('PEXPIRE', key, without_run_ms)
  end
end
