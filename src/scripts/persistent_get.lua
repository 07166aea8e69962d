-- Read a persistent value, together with its revision.
--
-- KEYS  1 value  2 persistent
-- ARGV  1 path, encoded
-- Answer  {bytes, revision}   a revision of 0: another program has set it
--         {}                  there is no value
local bytes = redis.call('GET', KEYS[1])
if not bytes then
  return {}
end
return {bytes, number(tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0))}
