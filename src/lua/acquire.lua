-- Take a lock if it is free and nobody was first; else, where asked, stand in its queue. Idempotent by the nonce.
--
-- A lock is held by one in mode w, or by as many as the request says in mode r: readers of a lock have no limit,
-- the permits of a semaphore one. The queue is first come, first served, so a waiting writer keeps later readers out.
--
-- What follows is all that an uncontended lock takes, before the shared functions are even made: this is the call
-- whose price everybody pays. enqueue.lua is the rest.
--
-- KEYS  1 lock  2 shared  3 queue  4 lease  5 owned  6 revision
-- ARGV  1 prefix   2 name, encoded   3 session   4 nonce   5 'w' or 'r'   6 most holders   7 safety ttl, ms
--       8 member, encoded   9 'wait' or 'try'
-- Answer  {'held', token, since ms}
--         {'busy'}                     held by somebody else
--         {'queued', how many are before, ms until it is worth asking again or -1}
--         {'lost'}                     the session's lease is gone; nothing was written
local prefix, name, session, nonce, mode = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local found = redis.call('MGET', KEYS[1], KEYS[4], KEYS[6])
local record, lease = found[1], found[2]
if not lease or lease == 'closed' then
  return {'lost'}
end
if not record and mode == 'w' and redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) == 0 then
  local revision, roster = string.match(found[3] or '0', '^(%d+)/?(%d*)$')
  if revision then
    local time = redis.call('TIME')
    local token = string.format('%.0f', math.max(tonumber(revision) + 1, time[1] * 1000000 + time[2]))
    local since = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
    redis.call('SET', KEYS[6], token .. '/' .. (roster == '' and revision or roster))
    redis.call('SET', KEYS[1], '{"v":1,"token":' .. token .. ',"session":"' .. session .. '","nonce":' .. nonce
      .. ',"since":' .. since .. ',"member":"' .. ARGV[8] .. '"}', 'PX', ARGV[7])
    redis.call('SADD', KEYS[5], 'locks/' .. name)
    return {'held', token, since}
  end
end

