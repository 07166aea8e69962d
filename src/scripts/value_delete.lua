-- Delete an ephemeral value, if this session owns it.
--
-- KEYS  1 value  2 owned  3 ephemerals  4 leases
-- ARGV  1 path, encoded   2 session
-- Answer  1 it was deleted | 0 it was not there, or another session owns it
local head = redis.call('GETRANGE', KEYS[1], 0, 255)
if string.match(head, '^{"v":1,"session":"([^"]*)",') ~= ARGV[2] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], '=' .. ARGV[1])
redis.call('SREM', KEYS[2], 'ephemerals/' .. ARGV[1])
return 1
