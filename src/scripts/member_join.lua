-- Join, and open the session with it where it is the session's first act. Idempotent by the caller's nonce.
--
-- KEYS  1 member  2 members  3 lease  4 leases  5 owned  6 revision  7 never exists
-- ARGV  1 prefix of the group's keys     2 id, encoded       3 session
--       4 'open' or 'opened'             5 lease value, up to its since: it gets the time and a brace    6 ttl, ms   7 safety ttl, ms
--       8 'take' or 'yield' when the id is live elsewhere, or 'rejoin': yield, but not to another program's text
--       9 nonce     10 tail of the record
-- An earlier session of the same connector is no other: data that come back bring its lease with them.
-- An opening that is repeated renews the lease, for the client counts from the later sending.
--
-- Answer  {'joined', incarnation, revision, joined-at ms}
--         {'conflict', lease value of the holder}     no member was written
--         {'lost'}                                    the session's lease is gone; nothing was written
local prefix, id, session, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[9]

check_indexes(KEYS[2], KEYS[4])
local head = head_of(KEYS[1])
if type(head) == 'table' then
  return head
end
local lease = redis.call('GET', KEYS[3])
if lease == 'closed' or (not lease and ARGV[4] ~= 'open') then
  return {'lost'}
end

local revision = next_revision(KEYS[6])
if lease and ARGV[4] == 'open' then
  redis.call('PEXPIRE', KEYS[3], ARGV[6])
  redis.call('ZADD', KEYS[4], number(now_ms() + ARGV[6]), session)
end

local holder = session_in(head)
if holder == session and string.match(head, '"nonce":(%d+),') == nonce and lease then
  return {'joined', string.match(head, '"incarnation":(%d+),.-"revision":(%d+),"joined":(%d+),')}
end

local adopted = not holder and redis.call('EXISTS', KEYS[1]) == 1
if ARGV[8] ~= 'take' then
  if adopted and ARGV[8] == 'yield' and redis.call('PTTL', KEYS[1]) > 0 then
    return {'conflict', 'another program'}
  end
  local other = holder and holder ~= session and not is_outlived(holder, session)
  local value = other and redis.call('GET', prefix .. 'leases/' .. holder)
  if value and value ~= 'closed' then
    return {'conflict', value}
  end
end

local now = now_ms()
redis.call('ZADD', KEYS[2], number(revision), id)
redis.call('SET', KEYS[6], number(revision))
if not lease then
  redis.call('ZADD', KEYS[4], number(now + ARGV[6]), session)
  redis.call('SET', KEYS[3], ARGV[5] .. number(now) .. '}', 'PX', ARGV[6])
end
local life = record_ttl(ARGV[7], KEYS[2])
extend_ttl(KEYS[2], number(life))
extend_ttl(KEYS[4], number(life))
redis.call('SADD', KEYS[5], '.', 'members/' .. id)
redis.call('PEXPIRE', KEYS[5], number(life))
if adopted then
  redis.call('ZREM', KEYS[4], '~' .. id)
elseif holder and holder ~= session then
  redis.call('SREM', prefix .. 'owned/' .. holder, 'members/' .. id)
end
local record = '{"v":1,"incarnation":' .. number(revision) .. ',"session":"' .. session .. '","nonce":' .. nonce
  .. ',"revision":' .. number(revision) .. ',"joined":' .. number(now) .. ',' .. ARGV[10]
local deadline = redis.call('ZSCORE', KEYS[4], session) or now
tell(prefix, 'joined ' .. id .. ' ' .. number(math.max(0, deadline - now)) .. ' ' .. record)
redis.call('SET', KEYS[1], record, 'PX', number(life))
return {'joined', number(revision), number(revision), number(now)}
