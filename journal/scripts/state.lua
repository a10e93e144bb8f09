-- Included: an object's whole state where it is small, as a flat list of names and values; false where it is to be read lazily.
-- Every value counts (SAMPLES 0): a few huge ones among many small ones must not slip through.
local STATE_NAMES_MAX, STATE_BYTES_MAX = 200, 65536

local function state_of(slot, target)
  local key = slot .. 'state:' .. target
  local names = redis.call('HLEN', key)
  if names == 0 then return {} end
  if names > STATE_NAMES_MAX or redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) > STATE_BYTES_MAX then return false end
  return redis.call('HGETALL', key)
end
