-- Ask for a place among the probers, or keep it. A place is for a moment, by the server's time, and for no longer than
-- its holder is subscribed to its inbox: another connector takes it when its holder is gone. The place of a holder that
-- has no inbox is written with a '~' and is not judged by it.
--
-- KEYS  1 leases  2 probers  3 asks
-- ARGV  1 prefix   2 connector   3 how long a place is for, ms   4 how many places there are   5 most sessions
-- Answer  {1, session ...}  a place is held; these are the sessions, the earliest deadlines first
--         {0, how many have asked within this second, connector ...}
--                           all places are taken, by these of those that have an inbox; or there is no session to probe
local asks = (tonumber(redis.pcall('GET', KEYS[3])) or 0) + 1
local left = redis.call('PTTL', KEYS[3])
redis.call('SET', KEYS[3], asks, 'PX', left > 0 and left or 1000)
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {0, asks}
end

local function has_inbox(connector)
  return redis.call('PUBSUB', 'NUMSUB', ARGV[1] .. 'inbox/' .. connector)[2] > 0
end

local now = now_ms()
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', number(now))) do
  redis.call('ZREM', KEYS[2], gone)
end
local place = has_inbox(ARGV[2]) and ARGV[2] or '~' .. ARGV[2]
local others = {}
for _, holder in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local is_unjudged = string.sub(holder, 1, 1) == '~'
  if holder ~= place and string.gsub(holder, '^~', '') == ARGV[2] or not is_unjudged and not has_inbox(holder) then
    redis.call('ZREM', KEYS[2], holder)
  elseif not is_unjudged then
    others[#others + 1] = holder
  end
end
if not redis.call('ZSCORE', KEYS[2], place) and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then
  return {0, asks, unpack(others)}
end
redis.call('ZADD', KEYS[2], number(now + ARGV[3]), place)
redis.call('PEXPIRE', KEYS[2], ARGV[3] * 4)
local answer = {1}
for _, lease in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[5] - 1)) do
  local kind = string.sub(lease, 1, 1)
  if kind ~= '~' and kind ~= '=' then
    answer[#answer + 1] = lease
  end
end
return answer
