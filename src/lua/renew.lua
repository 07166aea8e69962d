-- Push out the safety ttl of the members that a session owns, and note again that it owns them, where somebody has deleted
-- that.
--
-- KEYS  1 owned
-- ARGV  1 prefix   2 session   3 safety ttl, ms   4.. ids, encoded
-- Answer  the ids whose record is not this session's any more
local strangers, paths = {}, {'.'}
for i = 4, #ARGV do
  local key = ARGV[1] .. 'members/' .. ARGV[i]
  local head = head_of(key)
  if type(head) == 'string' and session_in(head) == ARGV[2] then
    redis.call('PEXPIRE', key, ARGV[3])
    paths[#paths + 1] = 'members/' .. ARGV[i]
  else
    strangers[#strangers + 1] = ARGV[i]
  end
end
-- A session that is over is not to own anything again.
local lives = lease_of(ARGV[1] .. 'leases/' .. ARGV[2])
if lives and lives ~= 'closed' and not is_foreign(unless_foreign('SADD', KEYS[1], unpack(paths))) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return strangers
