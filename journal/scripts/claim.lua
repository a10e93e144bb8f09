-- include prelude
-- include take
-- Claims a ready invocation for a new attempt, if its epoch is still the one that the resume record ends.
-- KEYS[1] invocation  KEYS[2] journal  KEYS[3] due  KEYS[4] status prefix
-- ARGV[1] id  [2] expected epoch  [3] token  [4] worker  [5] lease_ms  [6] body of the attempt's entry  [7] entries at most
--     [8] slot prefix
-- Returns false where it is stale, else {epoch, {service, handler, key, failures, admitted_at, idempotency_key, mode, source, lost}, length,
--     entries, state or false}
return take(KEYS, ARGV[8], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
