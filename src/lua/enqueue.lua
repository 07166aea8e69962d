-- The rest of acquire.lua: who holds already, who is dead, who is next, and the queue.
--
-- KEYS, ARGV and Answer are those of acquire.lua, whose locals are in sight.
local waiter = {session, nonce, mode, most, safety, member}

local function own()
  local mine
  if mode == 'w' then
    mine = redis.call('GET', KEYS[1])
  else
    mine = redis.call('HGET', shared, session .. ' ' .. nonce)
  end
  if mine then
    local holder, its = holder_in(mine)
    if holder == session and its == nonce then
      local token, since = string.match(mine, '"token":(%d+),.-"since":(%d+),')
      return 'held ' .. token .. ' ' .. since
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
  for _, field in ipairs(redis.call('HKEYS', shared)) do
    local reader = string.match(field, '^(%S+) %d+$')
    if not reader then
      error('WRONGTYPE a shared lock holds what is no record of a lock')
    end
    if not is_alive(prefix, reader) then
      redis.call('HDEL', shared, field)
    end
  end
end
hand_on(prefix, name)
mine = own()
if mine then
  return mine
end

local entry = ARGV[1]
local place = redis.call('ZRANK', queue, entry)
if not place then
  local holders = redis.call('HLEN', shared)
  if redis.call('EXISTS', KEYS[1], queue) == 0
    and (holders == 0 or mode == 'r' and holders < tonumber(most)) then
    local token, now = hold(prefix, name, waiter)
    return 'held ' .. token .. ' ' .. number(now)
  end
  if ARGV[2] ~= 'wait' then
    return 'busy'
  end
  local time = redis.call('TIME')
  local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2] or 0
  redis.call('ZADD', queue, number(math.max(last + 1, time[1] * 1000000 + time[2])), entry)
  redis.call('SADD', owned, 'queues/' .. name .. ' ' .. entry)
  place = redis.call('ZRANK', queue, entry)
end
keep(queue, safety)

record = redis.call('GET', KEYS[1])
local again
if record then
  again = redis.call('PTTL', prefix .. 'leases/' .. (holder_in(record)))
else
  again = deadline_in(prefix .. 'leases')
end
return 'queued ' .. place .. ' ' .. again
