-- The rest of lock_release.lua: shared holds, places in the queue, and the next holder.
--
-- KEYS, ARGV and Answer are those of lock_release.lua, whose locals are in sight.
local owned = prefix .. 'owned/' .. session

local function take_back(i)
  local name = string.sub(paths[i], 7)
  local nonce, mode, rest = string.match(ARGV[i], '^%S+ (%d+) (%a)(.*)$')
  if mode == 'r' and redis.call('HDEL', prefix .. 'shared/' .. name, session .. ' ' .. nonce) == 1 then
    unless_foreign('SREM', owned, 'shared/' .. name .. ' ' .. nonce)
    released[i] = 1
  end
  if rest ~= '' and redis.call('ZREM', queues[i], ARGV[i]) == 1 then
    unless_foreign('SREM', owned, 'queues/' .. name .. ' ' .. ARGV[i])
  end
end

local function pass_on(i)
  hand_on(prefix, string.sub(paths[i], 7))
end

-- All are taken back before the first is handed on: a waiter that gives up in the same call must not be handed
-- anything.
for _, step in ipairs({take_back, pass_on}) do
  for i = 1, #ARGV do
    if #ARGV == 1 then
      step(i)
    elseif not pcall(step, i) then
      released[i] = 'failed'
    end
  end
end
return released
