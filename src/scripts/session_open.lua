-- Open a session: give it its lease. Repeated, it renews the lease, for the client counts from the later sending.
--
-- KEYS  1 lease  2 leases  3 owned
-- ARGV  1 session   2 lease value, up to its since: it gets the time and a brace   3 ttl, ms   4 safety ttl, ms
-- Answer  1 it is open | 0 the session has been closed
local lease = redis.call('GET', KEYS[1])
if lease == 'closed' then
  return 0
end
local now = now_ms()
redis.call('ZADD', KEYS[2], number(now + ARGV[3]), ARGV[1])
extend_ttl(KEYS[2], ARGV[4])
-- A set that is never empty keeps its ttl, so that no lock has to give it one.
redis.call('SADD', KEYS[3], '.')
redis.call('PEXPIRE', KEYS[3], ARGV[4])
if lease then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2] .. number(now) .. '}', 'PX', ARGV[3])
end
return 1
