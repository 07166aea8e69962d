-- Shorten the leases of sessions that are not present any more: to the grace that the lease itself names, counted
-- from when the session was last seen. A session that is present at this moment, has closed, or names no grace keeps
-- what it has.
--
-- A session that the caller has never seen is judged only by the mark in its lease: its holder was subscribed over
-- this run of the server. What a restarted server brings back with its data has the mark of an earlier run.
--
-- The holder vouches for half of its grace after its connection has closed, so nine tenths are left at the least: it
-- may have closed just now.
--
-- KEYS  1 leases
-- ARGV  1 prefix   2.. pairs: session, ms since it was last seen or '' where it never was
-- Answer  {ms to the earliest deadline or -1, how many were shortened}
local prefix, shortened = ARGV[1], 0
local run

local function is_marked(lease)
  local mark = string.match(lease, '"run":"(%x+)"')
  if not mark then
    return false
  end
  run = run or server_run()
  return mark == run
end

for i = 2, #ARGV, 2 do
  local session, absent = ARGV[i], tonumber(ARGV[i + 1])
  local key = prefix .. 'leases/' .. session
  local lease = redis.pcall('GET', key)
  local grace = type(lease) == 'string' and tonumber(string.match(lease, '"grace":(%d+)'))
  if grace and (absent or is_marked(lease))
    and redis.call('PUBSUB', 'NUMSUB', prefix .. 'presence/' .. session)[2] == 0 then
    local ms = math.ceil(math.max(grace - (absent or grace), grace * 0.9))
    if redis.call('PTTL', key) > ms then
      redis.call('PEXPIRE', key, ms)
      redis.call('ZADD', KEYS[1], number(now_ms() + ms), session)
      shortened = shortened + 1
    end
  end
end
return {deadline_in(KEYS[1]), shortened}
