-- What stands in some members' keys now, and, where nothing does, why.
--
-- Text that another program keeps there with a ttl is adopted: it gets an incarnation and a deadline in the index.
--
-- KEYS  1 members  2 leases  3 revision
-- ARGV  1 prefix   2 most bytes of records a call   3.. pairs: id, encoded, and the session the caller knows, or ''
-- Answer  {ms to the earliest deadline or -1, the group's revision, then for each pair one of
--          {'record', value} | {'foreign', incarnation, text} | {'unkept'} text without a ttl
--          | {'left'} | {'removed'} | {'expired'} | {'gone'} an adopted one | {'later'} no room: ask again}
local prefix, room = ARGV[1], tonumber(ARGV[2])

local function adopt(id, key, text)
  local left = redis.call('PTTL', key)
  if left < 0 then
    return {'unkept'}
  end
  local due = number(now_ms() + left)
  local incarnation = redis.call('ZSCORE', KEYS[1], id)
  if incarnation and redis.call('ZSCORE', KEYS[2], '~' .. id) then
    redis.pcall('ZADD', KEYS[2], due, '~' .. id)
    extend_ttl(KEYS[1], 4 * left)
    extend_ttl(KEYS[2], 4 * left)
    return {'foreign', number(tonumber(incarnation)), text}
  end
  local revision = number(next_revision(KEYS[3]))
  local added = redis.pcall('ZADD', KEYS[1], revision, id)
  if type(added) == 'table' then
    return {'unkept'}
  end
  redis.call('SET', KEYS[3], revision)
  redis.call('ZADD', KEYS[2], due, '~' .. id)
  extend_ttl(KEYS[1], 4 * left)
  extend_ttl(KEYS[2], 4 * left)
  return {'foreign', revision, text}
end

local function drop(id)
  redis.call('ZREM', KEYS[2], '~' .. id)
  if redis.call('ZREM', KEYS[1], id) == 1 then
    redis.call('SET', KEYS[3], number(next_revision(KEYS[3])))
  end
end

-- A record that the index does not list has been swept and is about to expire, or has lost its entry.
local function is_listed(id, value)
  return redis.call('ZSCORE', KEYS[1], id) == string.match(value, '^{"v":1,"incarnation":(%d+),')
end

local function why_gone(id, session)
  if session == '~' then
    drop(id)
    return {'gone'}
  end
  if session == '' and redis.call('ZCARD', KEYS[2]) > 0 then
    -- Whoever lives may be its owner and is the one to say. With nobody left it is a remnant.
    return {'removed'}
  end
  local lease = session ~= '' and redis.call('GET', prefix .. 'leases/' .. session)
  if not lease then
    drop(id)
    return {'expired'}
  end
  if lease ~= 'closed' and redis.call('ZSCORE', KEYS[1], id) then
    return {'removed'}
  end
  return {'left'}
end

local function why_unlisted(session)
  local lease = redis.call('GET', prefix .. 'leases/' .. session)
  return {lease == 'closed' and 'left' or lease and 'removed' or 'expired'}
end

local answer = {0, (revision_of(KEYS[3]))}
for i = 3, #ARGV, 2 do
  local id, session = ARGV[i], ARGV[i + 1]
  local key = prefix .. 'members/' .. id
  local size = redis.pcall('STRLEN', key)
  local found
  if type(size) == 'table' then
    -- Whatever else is wrong, a right that is missing say, goes wrong again here, and is told.
    found = string.find(size.err, 'WRONGTYPE', 1, true) and {'unkept'} or redis.call('STRLEN', key)
  elseif size > 0 and room < size and room < tonumber(ARGV[2]) then
    found = {'later'}
    room = 0
  else
    local value = redis.call('GET', key)
    if not value then
      found = why_gone(id, session)
    elseif session_in(value) and not is_listed(id, value) then
      found = why_unlisted(session_in(value))
    elseif string.sub(value, 1, 5) == '{"v":' then
      found = {'record', value}
    else
      found = adopt(id, key, value)
    end
    room = room - size
  end
  answer[#answer + 1] = found
end
answer[1] = deadline_in(KEYS[2])
return answer
