-- The holders and the waiters of a lock, as far as they live.
--
-- KEYS  1 lock  2 shared  3 queue
-- ARGV  1 prefix
-- Answer  {{record of each holder ...}, {entry, ticket of each waiter, in order ...}}
local prefix = ARGV[1]
local holders, waiters = {}, {}
local records = redis.call('HVALS', KEYS[2])
records[#records + 1] = redis.call('GET', KEYS[1]) or nil
for _, record in ipairs(records) do
  local session = holder_in(record)
  if session and is_alive(prefix, session) then
    holders[#holders + 1] = record
  end
end
local queue = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
for i = 1, #queue, 2 do
  local session = string.match(queue[i], '^(%S+) ')
  if session and is_alive(prefix, session) then
    waiters[#waiters + 1] = queue[i]
    waiters[#waiters + 1] = number(tonumber(queue[i + 1]))
  end
end
return {holders, waiters}
