-- Take a lock if it is free and nobody was first; else, where asked, stand in its queue. Idempotent by the nonce.
--
-- A lock is held by one in mode w, or by as many as the request says in mode r: readers of a lock have no limit,
-- the permits of a semaphore one. The queue is first come, first served, so a waiting writer keeps later readers out.
--
-- KEYS  1 lock  2 shared  3 queue  4 lease  5 owned  6 revision
-- ARGV  1 prefix   2 name, encoded   3 session   4 nonce   5 'w' or 'r'   6 most holders   7 safety ttl, ms
--       8 member, encoded   9 'wait' or 'try'
-- Answer  {'held', token, since ms}
--         {'busy'}                     held by somebody else
--         {'queued', how many are before, ms until it is worth asking again or -1}
--         {'lost'}                     the session's lease is gone; nothing was written
local prefix, name, session, nonce, mode = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local found = redis.call('MGET', KEYS[1], KEYS[4])
local record, lease = found[1], found[2]
if not lease or lease == 'closed' then
  return {'lost'}
end

local waiter = {session, nonce, mode, ARGV[6], ARGV[7], ARGV[8]}
if not record and redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) == 0 then
  local token, now = hold(prefix, name, waiter)
  return {'held', token, number(now)}
end

local function own()
  local mine = mode == 'w' and redis.call('GET', KEYS[1]) or mode == 'r' and redis.call('HGET', KEYS[2], session .. ' ' .. nonce)
  if mine then
    local holder, its = holder_in(mine)
    if holder == session and its == nonce then
      return {'held', string.match(mine, '"token":(%d+),.-"since":(%d+),')}
    end
  end
end

local mine = own()
if mine then
  return mine
end

record = redis.call('GET', KEYS[1])
local holder = record and holder_in(record)
if record and not holder then
  error('WRONGTYPE a lock holds no record of a lock')
end
if holder and not is_alive(prefix, holder) then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', prefix .. 'owned/' .. holder, 'locks/' .. name)
elseif not holder then
  for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
    local reader = string.match(field, '^(%S+) %d+$')
    if not reader then
      error('WRONGTYPE a shared lock holds what is no record of a lock')
    end
    if not is_alive(prefix, reader) then
      redis.call('HDEL', KEYS[2], field)
    end
  end
end
hand_on(prefix, name)
mine = own()
if mine then
  return mine
end

local entry = table.concat(waiter, ' ')
local place = redis.call('ZRANK', KEYS[3], entry)
if not place then
  local holders = redis.call('HLEN', KEYS[2])
  if redis.call('EXISTS', KEYS[1], KEYS[3]) == 0
    and (holders == 0 or mode == 'r' and holders < tonumber(ARGV[6])) then
    local token, now = hold(prefix, name, waiter)
    return {'held', token, number(now)}
  end
  if ARGV[9] == 'try' then
    return {'busy'}
  end
  local time = redis.call('TIME')
  local last = redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')[2] or 0
  redis.call('ZADD', KEYS[3], number(math.max(last + 1, time[1] * 1000000 + time[2])), entry)
  redis.call('SADD', KEYS[5], 'queues/' .. name .. ' ' .. entry)
  place = redis.call('ZRANK', KEYS[3], entry)
end
keep(KEYS[3], ARGV[7])

record = redis.call('GET', KEYS[1])
local again
if record then
  again = redis.call('PTTL', prefix .. 'leases/' .. (holder_in(record)))
else
  again = deadline_in(prefix .. 'leases')
end
return {'queued', place, again}
