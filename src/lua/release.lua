-- Give a lock back, or the place in its queue, and hand it on. Only who holds it can.
--
-- What follows is all that an uncontended lock takes; handover.lua is the rest.
--
-- KEYS  1 lock
-- ARGV  1 the queue's entry, as for acquire.lua; its first three words are enough where it is held and not waited for
-- Answer  1 it was held and is given back | 0 it was not held by this session and nonce
local prefix, name = string.match(KEYS[1], '^(.-}/)locks/(.*)$')
local session, nonce, mode, rest = string.match(ARGV[1], '^(%S+) (%d+) (%a)(.*)$')
local queue, owned = prefix .. 'queues/' .. name, prefix .. 'owned/' .. session
local released = 0
if mode == 'w' then
  local record = redis.call('GET', KEYS[1])
  if record and string.find(record, ',"session":"' .. session .. '","nonce":' .. nonce .. ',', 1, true) then
    redis.call('DEL', KEYS[1])
    redis.call('SREM', owned, 'locks/' .. name)
    released = 1
  end
  if rest == '' and redis.call('EXISTS', queue) == 0 then
    return released
  end
end

