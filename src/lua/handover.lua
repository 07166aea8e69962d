-- The rest of release.lua: shared holds, places in the queue, and who is next.
--
-- KEYS, ARGV and Answer are those of release.lua, whose locals are in sight.
if mode == 'r' and redis.call('HDEL', prefix .. 'shared/' .. name, session .. ' ' .. nonce) == 1 then
  redis.call('SREM', owned, 'shared/' .. name .. ' ' .. nonce)
  released = 1
end
if rest ~= '' and redis.call('ZREM', queue, ARGV[1]) == 1 then
  redis.call('SREM', owned, 'queues/' .. name .. ' ' .. ARGV[1])
end
hand_on(prefix, name)
return released
