-- Give a lock back, or the place in its queue, and hand it on. Only who holds it can.
--
-- What follows is all that an uncontended lock takes; handover.lua is the rest.
--
-- KEYS  1 lock  2 shared  3 queue  4 owned
-- ARGV  1 prefix   2 name, encoded   3 session   4 nonce   5 'w' or 'r'   6 the queue's entry, '' if there is none
-- Answer  1 it was held and is given back | 0 it was not held by this session and nonce
local prefix, name, session, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local released = 0
if ARGV[5] == 'w' then
  local record = redis.call('GET', KEYS[1])
  if record and string.find(record, ',"session":"' .. session .. '","nonce":' .. nonce .. ',', 1, true) then
    redis.call('DEL', KEYS[1])
    redis.call('SREM', KEYS[4], 'locks/' .. name)
    released = 1
  end
  if ARGV[6] == '' and redis.call('EXISTS', KEYS[3]) == 0 then
    return released
  end
end

