-- The rest of release.lua: shared holds, places in the queue, and who is next.
--
-- KEYS, ARGV and Answer are those of release.lua, whose locals are in sight.
if ARGV[5] == 'r' and redis.call('HDEL', KEYS[2], session .. ' ' .. nonce) == 1 then
  redis.call('SREM', KEYS[4], 'shared/' .. name .. ' ' .. nonce)
  released = 1
end
if ARGV[6] ~= '' and redis.call('ZREM', KEYS[3], ARGV[6]) == 1 then
  redis.call('SREM', KEYS[4], 'queues/' .. name .. ' ' .. ARGV[6])
end
hand_on(prefix, name)
return released
