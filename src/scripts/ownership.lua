-- What a session owns, and the next holder of its locks. Put between the prelude and the scripts that give something
-- back.
--
-- tell_gone(prefix, cause, gone)    sends the watchers news of members that are no more: each an id and its incarnation
-- incarnation_in(head)              the incarnation that a record's head names
-- hand_on(prefix, name)             gives a lock to the first living waiters, as far as it can be given
-- disown(prefix, session, path)     takes one thing from a session, if the session still owns it
-- hold(prefix, name, waiter)        makes a waiter a holder; answers the token and the time in ms, or nothing where it
--                                   cannot own it, since its owned set is of another type
-- holder_in(record)                 the session and the nonce of a lock's record, or nil
-- inbox_of(prefix, session)         the channel that the session's connector listens to
-- is_alive(prefix, session)         whether its lease lives and it has not closed
--
-- A queue's entry is "<session> <nonce> <w or r> <most holders> <safety ttl, ms> <member, encoded>".

local function incarnation_in(head)
  return string.match(head, '^{"v":1,"incarnation":(%d+),')
end

-- In parts, since long news is not sent.
local function tell_gone(prefix, cause, gone)
  local news = ''
  for _, member in ipairs(gone) do
    if #news + #member > 4000 then
      tell(prefix, cause .. news)
      news = ''
    end
    news = news .. ' ' .. member
  end
  if news ~= '' then
    tell(prefix, cause .. news)
  end
end

local function is_alive(prefix, session)
  local lease = lease_of(prefix .. 'leases/' .. session)
  return lease and lease ~= 'closed'
end

local function inbox_of(prefix, session)
  return prefix .. 'inbox/' .. (string.gsub(session, '%-%d+$', ''))
end

local function holder_in(record)
  return string.match(record, '^{"v":1,"token":%d+,"session":"([^"]*)","nonce":(%d+),')
end

local function hold(prefix, name, waiter)
  local session, nonce, mode, safety, member = waiter[1], waiter[2], waiter[3], waiter[5], waiter[6]
  local path = mode == 'w' and 'locks/' .. name or 'shared/' .. name .. ' ' .. nonce
  if is_foreign(unless_foreign('SADD', prefix .. 'owned/' .. session, path)) then
    return
  end
  local token, now = take_revision(prefix .. 'revision')
  local record = '{"v":1,"token":' .. token .. ',"session":"' .. session .. '","nonce":' .. nonce
    .. ',"since":' .. number(now) .. ',"member":"' .. member .. '"}'
  if mode == 'w' then
    redis.call('SET', prefix .. 'locks/' .. name, record, 'PX', safety)
  else
    redis.call('HSET', prefix .. 'shared/' .. name, session .. ' ' .. nonce, record)
    extend_ttl(prefix .. 'shared/' .. name, safety)
  end
  return token, now
end

local function hand_on(prefix, name)
  local queue, lock, shared = prefix .. 'queues/' .. name, prefix .. 'locks/' .. name, prefix .. 'shared/' .. name
  while redis.call('EXISTS', lock) == 0 do
    local entry = redis.call('ZRANGE', queue, 0, 0)[1]
    if not entry then
      return
    end
    local waiter = {string.match(entry, '^(%S+) (%d+) (%a) (%d+) (%d+) (%S+)$')}
    local session = waiter[1]
    if not session or not is_alive(prefix, session) then
      redis.call('ZREM', queue, entry)
    else
      local holders = redis.call('HLEN', shared)
      if holders > 0 and (waiter[3] == 'w' or holders >= tonumber(waiter[4])) then
        return
      end
      redis.call('ZREM', queue, entry)
      unless_foreign('SREM', prefix .. 'owned/' .. session, 'queues/' .. name .. ' ' .. entry)
      local token, now = hold(prefix, name, waiter)
      if token then
        redis.pcall('PUBLISH', inbox_of(prefix, session), 'grant ' .. waiter[2] .. ' ' .. token .. ' ' .. number(now))
      end
      if token and waiter[3] == 'w' then
        return
      end
    end
  end
end

local function disown(prefix, session, path)
  local kind, rest = string.match(path, '^(%l+)/(.*)$')
  if kind == 'locks' then
    local head = head_of(prefix .. path)
    if type(head) == 'string' and holder_in(head) == session then
      redis.call('DEL', prefix .. path)
      hand_on(prefix, rest)
    end
  elseif kind == 'shared' then
    local name, nonce = string.match(rest, '^(%S+) (%d+)$')
    if redis.call('HDEL', prefix .. 'shared/' .. name, session .. ' ' .. nonce) == 1 then
      hand_on(prefix, name)
    end
  elseif kind == 'queues' then
    local name, entry = string.match(rest, '^(%S+) (.*)$')
    if redis.call('ZREM', prefix .. 'queues/' .. name, entry) == 1 then
      hand_on(prefix, name)
    end
  elseif kind == 'ephemerals' then
    local head = head_of(prefix .. path)
    if type(head) == 'string' and string.match(head, '^{"v":1,"session":"([^"]*)",') == session then
      redis.call('DEL', prefix .. path)
      redis.call('ZREM', prefix .. 'ephemerals', rest)
      redis.call('ZREM', prefix .. 'leases', '=' .. rest)
    end
  end
end

