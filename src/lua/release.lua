-- Give a lock back, or the place in its queue, and hand it on. Only who holds it can.
--
-- KEYS  1 lock  2 shared  3 queue  4 owned
-- ARGV  1 prefix   2 name, encoded   3 session   4 nonce   5 'w' or 'r'   6 the queue's entry, '' if there is none
-- Answer  1 it was held and is given back | 0 it was not held by this session and nonce
local prefix, name, session, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local released = 0
if ARGV[5] == 'w' then
  local record = redis.call('GET', KEYS[1])
  if record then
    local holder, its = holder_in(record)
    if holder == session and its == nonce then
      redis.call('DEL', KEYS[1])
      redis.call('SREM', KEYS[4], 'locks/' .. name)
      released = 1
    end
  end
elseif redis.call('HDEL', KEYS[2], session .. ' ' .. nonce) == 1 then
  redis.call('SREM', KEYS[4], 'shared/' .. name .. ' ' .. nonce)
  released = 1
end
if ARGV[6] ~= '' and redis.call('ZREM', KEYS[3], ARGV[6]) == 1 then
  redis.call('SREM', KEYS[4], 'queues/' .. name .. ' ' .. ARGV[6])
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  hand_on(prefix, name)
end
return released
