-- Push out the safety ttl of the members that a session owns, and note again that it owns them, where somebody has deleted
-- that. Every watcher is told of each record that is pushed out: where there is enough left, it is not.
--
-- KEYS  1 owned
-- ARGV  1 prefix   2 session   3 safety ttl, ms   4.. ids, encoded
-- Answer  the ids whose record is not this session's any more
local life = record_ttl(ARGV[3], ARGV[1] .. 'members')
local enough = tonumber(ARGV[3])
local strangers, paths = {}, {'.'}
for i = 4, #ARGV do
  local key = ARGV[1] .. 'members/' .. ARGV[i]
  local head = head_of(key)
  if type(head) == 'string' and session_in(head) == ARGV[2] then
    if redis.call('PTTL', key) < enough then
      redis.call('PEXPIRE', key, number(life))
    end
    paths[#paths + 1] = 'members/' .. ARGV[i]
  else
    strangers[#strangers + 1] = ARGV[i]
  end
end
-- A session that is over is not to own anything again.
local lives = lease_of(ARGV[1] .. 'leases/' .. ARGV[2])
if lives and lives ~= 'closed' and not is_foreign(unless_foreign('SADD', KEYS[1], unpack(paths))) then
  redis.call('PEXPIRE', KEYS[1], number(life))
end
return strangers
