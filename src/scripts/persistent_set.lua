-- Set persistent values: all of them, or none.
--
-- KEYS  1 persistent
-- ARGV  1 prefix   2.. pairs: path, encoded, and bytes
-- Answer  the revision of each, in order
local prefix = ARGV[1]
redis.call('ZCARD', KEYS[1])
local revisions = {}
for i = 2, #ARGV, 2 do
  local revision = take_revision(prefix .. 'revision')
  redis.call('SET', prefix .. 'persistent/' .. ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[1], revision, ARGV[i])
  revisions[#revisions + 1] = revision
end
return revisions
