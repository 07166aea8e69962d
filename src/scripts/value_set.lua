-- Set an ephemeral value. Idempotent by the caller's nonce.
--
-- KEYS  1 value  2 lease  3 owned  4 ephemerals  5 leases  6 never exists
-- ARGV  1 prefix   2 path, encoded   3 session   4 nonce   5 an expiry of its own, ms, or 0   6 safety ttl, ms
--       7 'take' or 'yield' when another live session owns the path   8 the bytes
-- Answer  {'stored', revision}
--         {'conflict', lease value of the owner}     nothing was written
--         {'lost'}                                   the session's lease is gone; nothing was written
local prefix, path, session = ARGV[1], ARGV[2], ARGV[3]
local lease = lease_of(KEYS[2])
if not lease or lease == 'closed' then
  return {'lost'}
end
redis.call('ZCARD', KEYS[4])
local head = redis.call('GETRANGE', KEYS[1], 0, 255)
local owner, nonce, written = string.match(head, '^{"v":1,"session":"([^"]*)","nonce":(%d+),"revision":(%d+),')
if not owner and redis.call('EXISTS', KEYS[1]) == 1 then
  error('WRONGTYPE a value of the group is not one that this library has set')
end
if owner == session and nonce == ARGV[4] then
  return {'stored', written}
end
if owner and owner ~= session then
  local held = lease_of(prefix .. 'leases/' .. owner)
  if ARGV[7] == 'yield' and held and held ~= 'closed' and not is_outlived(owner, session) then
    return {'conflict', held}
  end
  unless_foreign('SREM', prefix .. 'owned/' .. owner, 'ephemerals/' .. path)
end

local revision, now = take_revision(prefix .. 'revision')
local own = tonumber(ARGV[5])
local ends = own > 0 and now + own or 0
redis.call('ZADD', KEYS[4], revision, path)
extend_ttl(KEYS[4], ARGV[6])
if own > 0 then
  redis.call('ZADD', KEYS[5], number(ends), '=' .. path)
else
  redis.call('ZREM', KEYS[5], '=' .. path)
end
redis.call('SADD', KEYS[3], 'ephemerals/' .. path)
redis.call('SET', KEYS[1], '{"v":1,"session":"' .. session .. '","nonce":' .. ARGV[4] .. ',"revision":' .. revision
  .. ',"until":' .. number(ends) .. '}\n' .. ARGV[8],
  'PX', number(own > 0 and math.min(own, ARGV[6]) or tonumber(ARGV[6])))
return {'stored', revision}
