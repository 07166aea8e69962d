-- Give locks back, or the places in their queues, and hand them on. Only a holder can. Several at once, of one session:
-- what a connector's tasks give back at the same moment is one call.
--
-- What follows is all that uncontended locks take; lock_handover.lua is the rest.
--
-- KEYS  1.. locks, and the key that never exists
-- ARGV  1.. for each the queue's entry, as for lock_acquire.lua; its first three words are enough where it is held and not
--           waited for
-- Answer  for each: 1 it was held and is given back | 0 this session and nonce did not hold it
--         | 'failed' by itself it would raise an error; only where there are several
local prefix, session = string.match(KEYS[1], '^(.-}/)'), string.match(ARGV[1], '^(%S+)')
local records = redis.call('MGET', unpack(KEYS, 1, #ARGV))
local paths, queues, released, held, freed = {}, {}, {}, {}, {}
local simple = true
for i = 1, #ARGV do
  local nonce, mode, rest = string.match(ARGV[i], '^%S+ (%d+) (%a)(.*)$')
  local path = string.sub(KEYS[i], #prefix + 1)
  paths[i], queues[i], released[i] = path, prefix .. 'queues/' .. string.sub(path, 7), 0
  simple = simple and mode == 'w' and rest == ''
  local holder = ',"session":"' .. session .. '","nonce":' .. nonce .. ','
  if mode == 'w' and records[i] and string.find(records[i], holder, 1, true) then
    released[i] = 1
    held[#held + 1], freed[#freed + 1] = KEYS[i], path
  end
end
if held[1] then
  redis.call('DEL', unpack(held))
  -- Of another type it keeps nothing from being given back.
  redis.pcall('SREM', prefix .. 'owned/' .. session, unpack(freed))
end
if simple and redis.call('EXISTS', unpack(queues)) == 0 then
  return released
end

