-- Set a persistent value, if its revision is the one that the caller has seen.
--
-- KEYS  1 value  2 persistent  3 revision
-- ARGV  1 path, encoded   2 the revision seen, or '' for no value   3 bytes
-- Answer  the new revision | '0' it was another one; nothing was written
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
  score = nil
end
if (score and number(tonumber(score)) or '') ~= ARGV[2] then
  return '0'
end
local revision = take_revision(KEYS[3])
redis.call('SET', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], revision, ARGV[1])
return revision
