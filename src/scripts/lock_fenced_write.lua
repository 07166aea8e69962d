-- Write a persistent value, as long as the caller holds the lock.
--
-- KEYS  1 lock  2 shared  3 lease  4 value  5 persistent  6 revision
-- ARGV  1 session   2 nonce   3 'w' or 'r'   4 path, encoded   5 'set' or 'del'   6 value
-- Answer  {'lost'} the lock is not the caller's; nothing was written
--         {'set', revision} | {'deleted', 1 if there was a value or 0}
local record
if ARGV[3] == 'w' then
  record = redis.call('GET', KEYS[1])
else
  record = redis.call('HGET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
end
local session, nonce = holder_in(record or '')
local lease = redis.call('GET', KEYS[3])
if session ~= ARGV[1] or nonce ~= ARGV[2] or not lease or lease == 'closed' then
  return {'lost'}
end
if ARGV[5] == 'del' then
  redis.call('ZREM', KEYS[5], ARGV[4])
  return {'deleted', redis.call('DEL', KEYS[4])}
end
local revision = take_revision(KEYS[6])
redis.call('SET', KEYS[4], ARGV[6])
redis.call('ZADD', KEYS[5], revision, ARGV[4])
return {'set', revision}
