-- Shared by every script: put before each of them.
--
-- next_revision(key)     the group's next revision, not yet written: max(previous + 1, TIME in microseconds)
-- revision_of(key)       as text: the group's revision, '0' where there is none, and the roster's
-- take_revision(key)     takes the next revision for what is no change of the roster; answers it and the time in ms
-- extend_ttl(key, ms)    lets a shared key live on for that long, or for three quarters of it at the least
-- record_ttl(ms, members)  how long a member's record is to live on: for that long, and longer in a large group, since every
--                        watcher is told of each renewal
-- check_indexes(a, b)    fails, before anything is written, if an index holds another type
-- number(n)              a whole number as text; tostring would lose digits
-- now_ms()               the server's time in milliseconds
-- deadline_in(leases)    milliseconds until the earliest deadline of the index, or -1
-- head_of(key)           the first bytes of a record, '' where there is none, or an error for a wrong type
-- session_in(head)       the session a record's head names, or nil
-- lease_of(key)          a lease's value, or false where there is none or it holds another type
-- unless_foreign(..)     as redis.pcall, but only a key of another type is no failure: its error is answered
-- tell(prefix, news)    sends the watchers news of what is written next, unless it is long: then they read it. Who may not
--                        use the channel tells nothing
-- is_outlived(a, b)      whether session b is a later one of the connector that session a is of

local function number(n)
  return string.format('%.0f', n)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The value is one number, or two where a lock or a value has taken a revision since the roster last changed.
local function revision_of(key)
  local revision, roster = string.match(redis.call('GET', key) or '0', '^(%d+)/?(%d*)$')
  if not revision then
    error('WRONGTYPE the revision is no number')
  end
  return revision, roster == '' and revision or roster
end

local function after(revision, time)
  return math.max(tonumber(revision) + 1, time[1] * 1000000 + time[2])
end

local function next_revision(key)
  local revision = revision_of(key)
  return after(revision, redis.call('TIME'))
end

local function take_revision(key)
  local time = redis.call('TIME')
  local revision, roster = revision_of(key)
  local taken = number(after(revision, time))
  redis.call('SET', key, taken .. '/' .. roster)
  return taken, time[1] * 1000 + math.floor(time[2] / 1000)
end

local function extend_ttl(key, ms)
  if redis.call('PTTL', key) < ms * 0.75 then
    redis.call('PEXPIRE', key, ms)
  end
end

local function record_ttl(ms, members)
  local count = redis.pcall('ZCARD', members)
  return math.floor(ms * math.max(1, type(count) == 'number' and count / 10 or 1))
end

local function check_indexes(members, leases)
  redis.call('ZCARD', members)
  redis.call('ZCARD', leases)
end

local function deadline_in(leases)
  local first = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
  if not first[2] then
    return -1
  end
  return math.max(0, tonumber(first[2]) - now_ms())
end

local function is_foreign(answer)
  return type(answer) == 'table' and answer.err and string.find(answer.err, 'WRONGTYPE', 1, true)
end

local function unless_foreign(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err and not is_foreign(answer) then
    return error(answer.err .. ' in ' .. (...))
  end
  return answer
end

local function head_of(key)
  local head = redis.pcall('GETRANGE', key, 0, 255)
  if type(head) == 'table' and not is_foreign(head) then
    -- Whatever else it is fails here, so that the error names the line.
    return redis.call('GETRANGE', key, 0, 255)
  end
  return head
end

local function lease_of(key)
  local lease = redis.pcall('GET', key)
  if type(lease) == 'table' and not is_foreign(lease) then
    return redis.call('GET', key)
  end
  return type(lease) == 'string' and lease
end

local function session_in(head)
  return string.match(head, '^{"v":1,"incarnation":%d+,"session":"([^"]*)",')
end

local function tell(prefix, news)
  if #news <= 4096 then
    redis.pcall('PUBLISH', prefix .. 'news', news)
  end
end

local function is_outlived(holder, session)
  local connector, count = string.match(holder, '^(.+)%-(%d+)$')
  local by, later = string.match(session, '^(.+)%-(%d+)$')
  return connector and connector == by and tonumber(count) < tonumber(later)
end
