-- The rest of lock_acquire.lua: present holders, dead ones, the next one, and the queue.
--
-- KEYS, ARGV and Answer are those of lock_acquire.lua, whose locals are in sight.

-- What one waiter has of a lock already.
local function own(lock, shared, waiter)
  local record
  if waiter[3] == 'w' then
    record = redis.call('GET', lock)
  else
    record = redis.call('HGET', shared, waiter[1] .. ' ' .. waiter[2])
  end
  if record then
    local holder, nonce = holder_in(record)
    if holder == waiter[1] and nonce == waiter[2] then
      local token, since = string.match(record, '"token":(%d+),.-"since":(%d+),')
      return 'held ' .. token .. ' ' .. since
    end
  end
end

local function disown_the_dead(name, lock, shared)
  local record = redis.call('GET', lock)
  local holder = record and holder_in(record)
  if record and not holder then
    error('WRONGTYPE a lock holds no record of a lock')
  end
  if holder and not is_alive(prefix, holder) then
    redis.call('DEL', lock)
    unless_foreign('SREM', prefix .. 'owned/' .. holder, 'locks/' .. name)
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
end

local function ask(name, entry, waits)
  local lock, shared, queue = prefix .. 'locks/' .. name, prefix .. 'shared/' .. name, prefix .. 'queues/' .. name
  local waiter = {string.match(entry, '^(%S+) (%d+) (%a) (%d+) (%d+) (%S+)$')}
  local mode, most, safety = waiter[3], tonumber(waiter[4]), waiter[5]
  local mine = own(lock, shared, waiter)
  if mine then
    return mine
  end
  disown_the_dead(name, lock, shared)
  hand_on(prefix, name)
  mine = own(lock, shared, waiter)
  if mine then
    return mine
  end

  local place = redis.call('ZRANK', queue, entry)
  if not place then
    local holders = redis.call('HLEN', shared)
    if redis.call('EXISTS', lock, queue) == 0 and (holders == 0 or mode == 'r' and holders < most) then
      local token, now = hold(prefix, name, waiter)
      if not token then
        error('WRONGTYPE what the session owns is no set')
      end
      return 'held ' .. token .. ' ' .. number(now)
    end
    if not waits then
      return 'busy'
    end
    local time = redis.call('TIME')
    local last = redis.call('ZRANGE', queue, -1, -1, 'WITHSCORES')[2] or 0
    redis.call('SADD', prefix .. 'owned/' .. session, 'queues/' .. name .. ' ' .. entry)
    redis.call('ZADD', queue, number(math.max(last + 1, time[1] * 1000000 + time[2])), entry)
    place = redis.call('ZRANK', queue, entry)
  end
  extend_ttl(queue, safety)

  local record = redis.call('GET', lock)
  local again
  if record then
    again = redis.call('PTTL', prefix .. 'leases/' .. (holder_in(record)))
  else
    again = deadline_in(prefix .. 'leases')
  end
  return 'queued ' .. place .. ' ' .. again
end

if not is_alive(prefix, session) then
  for i = 1, #ARGV do
    answers[i] = 'lost'
  end
  return answers
end
for i = 1, #ARGV do
  if not answers[i] then
    local kind, entry = string.match(ARGV[i], '^(%l+) (.*)$')
    local name = string.sub(paths[i], 7)
    if #ARGV == 1 then
      answers[i] = ask(name, entry, kind == 'wait')
    else
      local fine, answer = pcall(ask, name, entry, kind == 'wait')
      answers[i] = fine and answer or 'failed'
    end
  end
end
return answers
