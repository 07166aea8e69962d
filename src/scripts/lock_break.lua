-- Take a lock from its holders, tell them, and hand it on.
--
-- KEYS  1 lock  2 shared  3 never exists
-- ARGV  1 prefix   2 name, encoded
-- Answer  from how many it was taken
local prefix, name = ARGV[1], ARGV[2]
local broken = 0

local function check(record)
  if not holder_in(record) then
    error('WRONGTYPE a lock holds no record of a lock')
  end
end

local function tell(record, path)
  local session, nonce = holder_in(record)
  broken = broken + 1
  unless_foreign('SREM', prefix .. 'owned/' .. session, path .. (path == 'shared/' .. name and ' ' .. nonce or ''))
  redis.pcall('PUBLISH', inbox_of(prefix, session), 'broken ' .. nonce)
end

local record = redis.call('GET', KEYS[1])
local shared = redis.call('HVALS', KEYS[2])
if record then
  check(record)
end
for _, holder in ipairs(shared) do
  check(holder)
end
redis.call('DEL', KEYS[1], KEYS[2])
if record then
  tell(record, 'locks/' .. name)
end
for _, holder in ipairs(shared) do
  tell(holder, 'shared/' .. name)
end
hand_on(prefix, name)
return broken
