-- Push out the safety ttl of what a session owns.
--
-- KEYS  1 owned
-- ARGV  1 prefix   2 session   3 safety ttl, ms   4.. ids, encoded
-- Answer  the ids whose record is not this session's any more
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local strangers = {}
for i = 4, #ARGV do
  local key = ARGV[1] .. 'members/' .. ARGV[i]
  local head = head_of(key)
  if type(head) == 'string' and session_in(head) == ARGV[2] then
    redis.call('PEXPIRE', key, ARGV[3])
  else
    strangers[#strangers + 1] = ARGV[i]
  end
end
return strangers
