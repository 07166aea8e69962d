-- Take one member out of the group, if it is still the caller's.
--
-- KEYS  1 member  2 members  3 owned  4 revision
-- ARGV  1 id, encoded   2 session   3 incarnation, or '' for whatever the session holds there
--       4 prefix of the group's keys
-- Answer  1 it left | 0 it was not there, or another session holds it
-- Where its record has been deleted and only its entry in the index is left, that entry goes too.
redis.call('ZCARD', KEYS[2])
local head = head_of(KEYS[1])
if type(head) == 'table' then
  return 0
end
if head == '' and redis.call('ZSCORE', KEYS[2], ARGV[1]) == ARGV[3] then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('SREM', KEYS[3], 'members/' .. ARGV[1])
  redis.call('SET', KEYS[4], number(next_revision(KEYS[4])))
  return 0
end
local incarnation, session = string.match(head, '^{"v":1,"incarnation":(%d+),"session":"([^"]*)",')
if session ~= ARGV[2] or (ARGV[3] ~= '' and incarnation ~= ARGV[3]) then
  return 0
end
tell(ARGV[4], 'left ' .. ARGV[1] .. ' ' .. incarnation)
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], 'members/' .. ARGV[1])
redis.call('SET', KEYS[4], number(next_revision(KEYS[4])))
return 1
