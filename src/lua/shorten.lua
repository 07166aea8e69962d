-- Give sessions that are not present any more less time: what is left of their leases, but not more than this. Who is
-- present at this moment, or has said goodbye, keeps what it has.
--
-- KEYS  1 leases
-- ARGV  1 prefix   2.. pairs: session, ms
-- Answer  {ms to the earliest deadline or -1, how many were given less}
local prefix, shortened = ARGV[1], 0
for i = 2, #ARGV, 2 do
  local session, ms = ARGV[i], tonumber(ARGV[i + 1])
  local lease = prefix .. 'leases/' .. session
  if redis.call('PUBSUB', 'NUMSUB', prefix .. 'presence/' .. session)[2] == 0
    and redis.call('PTTL', lease) > ms
    and redis.call('GET', lease) ~= 'closed'
  then
    redis.call('PEXPIRE', lease, ms)
    redis.call('ZADD', KEYS[1], number(now_ms() + ms), session)
    shortened = shortened + 1
  end
end
return {deadline_in(KEYS[1]), shortened}
