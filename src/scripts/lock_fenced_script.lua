-- Run a script of the user's as long as the caller holds the lock. Its text follows this one.
--
-- KEYS  1 lock  2 shared  3 lease  4.. the user's
-- ARGV  1 session   2 nonce   3 'w' or 'r'   4.. the user's
-- Answer  {'lost'} the lock is not the caller's; the script was not run
--         {'done', what the script answered}
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
local KEYS, ARGV = {unpack(KEYS, 4)}, {unpack(ARGV, 4)}
