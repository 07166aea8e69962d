-- The rest of acquire.lua: who holds already, who is dead, who is next, and the queue.
--
-- KEYS, ARGV and Answer are those of acquire.lua, whose locals are in sight.
local waiter = {session, nonce, mode, ARGV[6], ARGV[7], ARGV[8]}

local function own()
  local mine
  if mode == 'w' then
    mine = redis.call('GET', KEYS[1])
  else
    mine = redis.call('HGET', KEYS[2], session .. ' ' .. nonce)
  end
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
    local reader = string.match(field, '^(%S+) ')
    if not reader or not is_alive(prefix, reader) then
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
