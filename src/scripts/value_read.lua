-- What stands under some paths now, values or exclusive locks, and, where nothing does, why. A value of a dead session
-- counts as gone before it is swept; a lock is its last holder's until it is handed on.
--
-- KEYS  1 leases
-- ARGV  1 prefix   2 most bytes a call   3.. pairs: path with its folder, encoded, and the session known of it, or ''
-- Answer  {ms to the earliest deadline or -1, then for each pair one of
--          {'value', bytes} | {'deleted'} | {'expired'} its session is gone | {'foreign'} | {'later'} no room: ask again}
local prefix, room = ARGV[1], tonumber(ARGV[2])

local function gone(session)
  return {session ~= '' and not redis.call('GET', prefix .. 'leases/' .. session) and 'expired' or 'deleted'}
end

local function read(path, known)
  local size = redis.pcall('STRLEN', prefix .. path)
  if type(size) == 'table' then
    -- Whatever else is wrong, a right that is missing say, goes wrong again here, and is told.
    return string.find(size.err, 'WRONGTYPE', 1, true) and {'foreign'} or redis.call('STRLEN', prefix .. path)
  end
  if size > 0 and room < size and room < tonumber(ARGV[2]) then
    room = 0
    return {'later'}
  end
  room = room - size
  local value = redis.call('GET', prefix .. path)
  if not value then
    return gone(known)
  end
  local session = string.match(value, '^{"v":1,[^}]-"session":"([^"]*)",')
  if not session then
    return {'foreign'}
  end
  if string.sub(path, 1, 6) ~= 'locks/' and not is_alive(prefix, session) then
    return gone(session)
  end
  return {'value', value}
end

local answer = {0}
for i = 3, #ARGV, 2 do
  answer[#answer + 1] = read(ARGV[i], ARGV[i + 1])
end
answer[1] = deadline_in(KEYS[1])
return answer
