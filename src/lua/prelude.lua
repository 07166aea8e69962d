-- Shared by every script: put before each of them.
--
-- next_revision(key)     the group's next revision, not yet written: max(previous + 1, TIME in microseconds)
-- revision_of(key)       the group's revision as text, '0' where there is none
-- check_indexes(a, b)    fails, before anything is written, if an index holds another type
-- number(n)              a whole number as text; tostring would lose digits
-- now_ms()               the server's time in milliseconds
-- deadline_in(leases)    milliseconds until the earliest deadline of the index, or -1
-- head_of(key)           the first bytes of a record, '' where there is none, or an error for a wrong type
-- session_in(head)       the session a record's head names, or nil

local function number(n)
  return string.format('%.0f', n)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function revision_of(key)
  local revision = redis.call('GET', key) or '0'
  if not string.match(revision, '^%d+$') then
    error('WRONGTYPE the revision is no number')
  end
  return revision
end

local function next_revision(key)
  local time = redis.call('TIME')
  return math.max(tonumber(revision_of(key)) + 1, time[1] * 1000000 + time[2])
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

local function head_of(key)
  return redis.pcall('GETRANGE', key, 0, 255)
end

local function session_in(head)
  return string.match(head, '^{"v":1,"incarnation":%d+,"session":"([^"]*)",')
end

