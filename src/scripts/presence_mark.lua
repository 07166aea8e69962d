-- Mark a session's lease: its holder is subscribed to its presence, over this run of the server. From then on any
-- prober may judge it, whether it has seen it or not.
--
-- To be called by the holder over the connection that is subscribed.
--
-- KEYS  1 lease
-- ARGV  none
-- Answer  1 it is marked | 0 the lease is gone or closed, or the user may not ask which run of the server this is
local lease = lease_of(KEYS[1])
local run = lease and lease ~= 'closed' and server_run()
local left = redis.call('PTTL', KEYS[1])
if not run or left <= 0 then
  return 0
end
-- The PEXPIRE lets the SET through when memory is out.
redis.call('PEXPIRE', KEYS[1], left)
local marked = string.gsub(string.gsub(lease, ',"run":"%x*"', ''), '}$', ',"run":"' .. run .. '"}')
redis.call('SET', KEYS[1], marked, 'PX', left)
return 1
