-- Take a lock if it is free and nobody was first; else, where asked, stand in its queue. Idempotent by the nonce.
--
-- A lock is held by one in mode w, or by as many as the request says in mode r: readers of a lock have no limit,
-- the permits of a semaphore one. The queue is first come, first served, so a waiting writer keeps later readers out.
--
-- What follows is all that an uncontended lock takes, before the shared functions are even made: this is the call
-- whose price everybody pays. enqueue.lua is the rest.
--
-- KEYS  1 lock
-- ARGV  1 the queue's entry: "<session> <nonce> <w or r> <most holders> <safety ttl, ms> <member, encoded>"
--       2 'wait' to stand in the queue where it is not free
-- The other keys are the lock's neighbours, and both arguments are few for a reason: each costs as much as a command.
--
-- Answer  'held <token> <since, ms>'
--         'busy'                     held by somebody else
--         'queued <how many are before> <ms until it is worth asking again, or -1>'
--         'lost'                     the session's lease is gone; nothing was written
local prefix, name = string.match(KEYS[1], '^(.-}/)locks/(.*)$')
local session, nonce, mode, most, safety, member = string.match(ARGV[1], '^(%S+) (%d+) (%a) (%d+) (%d+) (%S+)$')
local shared, queue, owned = prefix .. 'shared/' .. name, prefix .. 'queues/' .. name, prefix .. 'owned/' .. session
local found = redis.call('MGET', KEYS[1], prefix .. 'leases/' .. session, prefix .. 'revision')
local record, lease = found[1], found[2]
if not lease or lease == 'closed' then
  return 'lost'
end
if not record and mode == 'w' and redis.call('EXISTS', KEYS[1], shared, queue) == 0 then
  local revision, roster = string.match(found[3] or '0', '^(%d+)/?(%d*)$')
  if revision then
    local time = redis.call('TIME')
    local token = string.format('%.0f', math.max(tonumber(revision) + 1, time[1] * 1000000 + time[2]))
    local since = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
    redis.call('SET', prefix .. 'revision', token .. '/' .. (roster == '' and revision or roster))
    redis.call('SET', KEYS[1], '{"v":1,"token":' .. token .. ',"session":"' .. session .. '","nonce":' .. nonce
      .. ',"since":' .. since .. ',"member":"' .. member .. '"}', 'PX', safety)
    redis.call('SADD', owned, 'locks/' .. name)
    return 'held ' .. token .. ' ' .. since
  end
end

