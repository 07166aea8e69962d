-- Take locks that are free and for which nobody was first; otherwise, if asked, queue the request. Idempotent by the
-- nonces. Several at once, of one session: the requests of a connector's tasks at the same moment are one call.
--
-- A lock is held by one in mode w, or by as many as the request says in mode r: readers of a lock have no limit,
-- the permits of a semaphore one. The queue is first come, first served, so a waiting writer keeps later readers out.
--
-- What follows is all that uncontended locks take, before the shared functions are even made: every acquisition pays
-- the price of this part. lock_enqueue.lua is the rest.
--
-- KEYS  1.. locks, and the key that never exists
-- ARGV  1.. for each: "try" or "wait", to stand in the queue where it is not free, and the queue's entry:
--           "<session> <nonce> <w or r> <most holders> <safety ttl, ms> <member, encoded>"
-- The other keys are the locks' neighbours, and the arguments are few for a reason: each costs as much as a command.
--
-- Answer  for each
--         'held <token> <since, ms>'
--         'busy'                     held by somebody else
--         'queued <how many are before> <ms until it is worth asking again, or -1>'
--         'lost'                     the session's lease is gone; nothing was written
--         'failed'                   asked for by itself, it would raise an error; only where there are several
local prefix, session = string.match(KEYS[1], '^(.-}/)'), string.match(ARGV[1], '^%l+ (%S+)')
local around, paths, entries, answers, held = {}, {}, {}, {}, 0
local simple = true
for i = 1, #ARGV do
  local nonce, mode, safety, member = string.match(ARGV[i], '^%l+ %S+ (%d+) (%a) %d+ (%d+) (%S+)$')
  simple = simple and mode == 'w'
  local path = string.sub(KEYS[i], #prefix + 1)
  local name = string.sub(path, 7)
  entries[i], paths[i] = {nonce, safety, member}, path
  around[3 * i - 2], around[3 * i - 1], around[3 * i] = KEYS[i], prefix .. 'shared/' .. name, prefix .. 'queues/' .. name
end
if simple and redis.call('EXISTS', unpack(around)) == 0 then
  local found = redis.call('MGET', prefix .. 'leases/' .. session, prefix .. 'revision')
  local revision, roster = string.match(found[2] or '0', '^(%d+)/?(%d*)$')
  if found[1] and found[1] ~= 'closed' and revision then
    local time = redis.call('TIME')
    local token = math.max(revision + 1, time[1] * 1000000 + time[2])
    local since = string.format('%d%03d', time[1], time[2] / 1000)
    local last = token + #ARGV - 1
    -- Digits in two parts: %d is quick, and may have 32 bits.
    last = string.format('%d%06d', last / 1000000, last % 1000000)
    redis.call('SET', prefix .. 'revision', last .. '/' .. (roster == '' and revision or roster))
    redis.call('SADD', prefix .. 'owned/' .. session, unpack(paths))
    for i = 1, #ARGV do
      local mine = string.format('%d%06d', token / 1000000, token % 1000000)
      token = token + 1
      local record = '{"v":1,"token":' .. mine .. ',"session":"' .. session .. '","nonce":' .. entries[i][1]
        .. ',"since":' .. since .. ',"member":"' .. entries[i][3] .. '"}'
      -- Asked for twice, it is free only once.
      if redis.call('SET', KEYS[i], record, 'PX', entries[i][2], 'NX') then
        answers[i], held = 'held ' .. mine .. ' ' .. since, held + 1
      end
    end
    if held == #ARGV then
      return answers
    end
  end
end

