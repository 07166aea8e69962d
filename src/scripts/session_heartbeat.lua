-- Renew a session's lease. The PEXPIRE comes before the ZADD: after it the ZADD is let through when memory is out.
-- A lease of another type is no lease.
--
-- KEYS  1 lease  2 leases
-- ARGV  1 session   2 ttl, ms
-- Answer  1 alive | 0 lost: the lease is gone or closed
local lease = lease_of(KEYS[1])
if not lease or lease == 'closed' then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
-- An index of another type is no reason to let a lease run out that can be renewed.
redis.pcall('ZADD', KEYS[2], number(now_ms() + ARGV[2]), ARGV[1])
return 1
