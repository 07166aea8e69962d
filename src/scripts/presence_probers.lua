-- Ask for a place among the probers, or keep it. A place is for a moment, by the server's time, so that another
-- connector takes it when its holder is gone.
--
-- KEYS  1 leases  2 probers  3 asks
-- ARGV  1 connector   2 how long a place is for, ms   3 how many places there are   4 most sessions
-- Answer  {1, session ...}  a place is held; these are the sessions, the earliest deadlines first
--         {0, how many have asked within this second}   all places are taken, or there is no session to probe
local asks = (tonumber(redis.pcall('GET', KEYS[3])) or 0) + 1
local left = redis.call('PTTL', KEYS[3])
redis.call('SET', KEYS[3], asks, 'PX', left > 0 and left or 1000)
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {0, asks}
end
local now = now_ms()
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', number(now))) do
  redis.call('ZREM', KEYS[2], gone)
end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then
  return {0, asks}
end
redis.call('ZADD', KEYS[2], number(now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2] * 4)
local answer = {1}
for _, lease in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[4] - 1)) do
  local kind = string.sub(lease, 1, 1)
  if kind ~= '~' and kind ~= '=' then
    answer[#answer + 1] = lease
  end
end
return answer
