-- Give back all that a session owns, members, locks and values, a bounded number of keys a call, and leave
-- `closed` in the lease.
--
-- KEYS  1 lease  2 leases  3 members  4 owned  5 revision  6 never exists
-- ARGV  1 prefix   2 session   3 most keys a call   4 how long `closed` stays, ms
-- Answer  how many keys the session still owns: call again until 0
check_indexes(KEYS[3], KEYS[2])
local members, gone = {}, {}
redis.call('SREM', KEYS[4], '.')
local owned = redis.call('SPOP', KEYS[4], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[1], 'closed', 'PX', ARGV[4])
for _, path in ipairs(owned) do
  local id = string.match(path, '^members/(.*)$')
  local head = id and head_of(ARGV[1] .. path)
  if type(head) == 'string' and session_in(head) == ARGV[2] then
    members[#members + 1] = id
    gone[#gone + 1] = id .. ' ' .. incarnation_in(head)
  elseif not id then
    pcall(disown, ARGV[1], ARGV[2], path)
  end
end
tell_gone(ARGV[1], 'left', gone)
for _, id in ipairs(members) do
  redis.call('DEL', ARGV[1] .. 'members/' .. id)
  redis.call('ZREM', KEYS[3], id)
end
if #members > 0 then
  redis.call('SET', KEYS[5], number(next_revision(KEYS[5])))
end
local left = redis.call('SCARD', KEYS[4])
if left == 0 then
  redis.call('ZREM', KEYS[2], ARGV[2])
end
return left
