-- Check the leases that are due and take what dead sessions own from them, a bounded number a call: members leave
-- the group, locks are handed on, values go.
--
-- A dead session's member keys are set to expire in 2 ms, and the watchers get news of it; the caller touches them 3 ms
-- later, and Redis tells by `expired` whom no news has reached. Writes that need memory come last, so that a server without any can still be swept.
--
-- The index of leases may have lost sessions, by eviction or by hand, and no sweep would check them: some members are
-- drawn each time, and their sessions noted again.
--
-- KEYS  1 leases  2 members  3 revision  4 never exists
-- ARGV  1 prefix   2 most things of dead sessions a call   3 most leases a call   4 how many members to draw
-- Answer  {ms to the earliest deadline or -1, 1 if more is due or 0, ids to touch, encoded ...}
check_indexes(KEYS[2], KEYS[1])
local prefix, room = ARGV[1], tonumber(ARGV[2])
local now = now_ms()
local dying, gone, moved, changed, more = {}, {}, {}, false, 0

local function end_member(id, head)
  redis.call('PEXPIRE', prefix .. 'members/' .. id, 2)
  redis.call('ZREM', KEYS[2], id)
  dying[#dying + 1] = id
  gone[#gone + 1] = id .. ' ' .. incarnation_in(head)
  changed = true
end

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', number(now), 'LIMIT', 0, ARGV[3])
if #due == tonumber(ARGV[3]) then
  more = 1
end

for _, session in ipairs(due) do
  if string.sub(session, 1, 1) == '~' then
    local id = string.sub(session, 2)
    local left = redis.call('PTTL', prefix .. 'members/' .. id)
    if left > 0 then
      moved[#moved + 1] = {session, left}
    else
      redis.call('ZREM', KEYS[1], session)
      redis.call('ZREM', KEYS[2], id)
      changed = true
    end
  elseif string.sub(session, 1, 1) == '=' then
    -- To read a value that has run out is what makes the server say so.
    local left = redis.call('PTTL', prefix .. 'ephemerals/' .. string.sub(session, 2))
    if left > 0 then
      moved[#moved + 1] = {session, left}
    else
      redis.call('ZREM', KEYS[1], session)
      redis.call('ZREM', prefix .. 'ephemerals', string.sub(session, 2))
    end
  else
    local left = redis.call('PTTL', prefix .. 'leases/' .. session)
    if left == -1 then
      moved[#moved + 1] = {session, 1000}
    elseif left >= 0 then
      moved[#moved + 1] = {session, left}
    elseif room == 0 then
      more = 1
    else
      local owned = prefix .. 'owned/' .. session
      local paths = unless_foreign('SPOP', owned, room)
      local is_lost = is_foreign(paths)
      if is_lost then
        paths = {}
      end
      room = room - #paths
      for _, path in ipairs(paths) do
        local id = string.match(path, '^members/(.*)$')
        if id then
          local head = head_of(prefix .. path)
          if head == '' then
            -- Evicted or deleted: only its place in the index is left.
            changed = redis.call('ZREM', KEYS[2], id) == 1 or changed
          elseif type(head) == 'string' and session_in(head) == session then
            end_member(id, head)
          end
        else
          -- What cannot be taken back, since its key is of another type, must not keep the rest.
          pcall(disown, prefix, session, path)
        end
      end
      if is_lost or redis.call('EXISTS', owned) == 0 then
        redis.call('ZREM', KEYS[1], session)
      else
        more = 1
      end
    end
  end
end

-- The microseconds are chance enough.
local parts = math.max(1, math.ceil(redis.call('ZCARD', KEYS[2]) / ARGV[4]))
local from = redis.call('TIME')[2] % parts * ARGV[4]
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], from, from + ARGV[4] - 1)) do
  local head = head_of(prefix .. 'members/' .. id)
  local session = type(head) == 'string' and session_in(head)
  if session and not redis.call('ZSCORE', KEYS[1], session) then
    local left = redis.call('PTTL', prefix .. 'leases/' .. session)
    if left ~= -2 then
      moved[#moved + 1] = {session, left == -1 and 1000 or left}
    else
      end_member(id, head)
      local owned = prefix .. 'owned/' .. session
      if not is_foreign(unless_foreign('SREM', owned, 'members/' .. id)) and redis.call('EXISTS', owned) == 1 then
        moved[#moved + 1] = {session, 0}
        more = 1
      end
    end
  end
end

tell_gone(prefix, 'expired', gone)
if changed then
  redis.call('SET', KEYS[3], number(next_revision(KEYS[3])))
end
for _, lease in ipairs(moved) do
  -- Removed first: out of memory only a script that has written before may add.
  redis.call('ZREM', KEYS[1], lease[1])
  redis.call('ZADD', KEYS[1], number(now + lease[2]), lease[1])
end
return {deadline_in(KEYS[1]), more, unpack(dying)}
