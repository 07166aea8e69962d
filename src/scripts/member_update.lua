-- Replace a member's tags and metadata, as long as it is still that incarnation. Idempotent by the nonce.
--
-- KEYS  1 member  2 lease  3 revision
-- ARGV  1 head of the record (incarnation and session)   2 nonce   3 joined-at, ms   4 tail   5 prefix of the group's keys   6 id, encoded
-- Answer  {'updated', revision} | {'lost'}
local head = head_of(KEYS[1])
if type(head) == 'table' then
  return head
end
local lease = redis.call('GET', KEYS[2])
if not lease or lease == 'closed' or string.sub(head, 1, #ARGV[1]) ~= ARGV[1] then
  return {'lost'}
end
local nonce, written = string.match(head, '"nonce":(%d+),"revision":(%d+),')
if nonce == ARGV[2] then
  return {'updated', written}
end
local revision = number(next_revision(KEYS[3]))
redis.call('SET', KEYS[3], revision)
local record = ARGV[1] .. '"nonce":' .. ARGV[2] .. ',"revision":' .. revision .. ',"joined":' .. ARGV[3] .. ',' .. ARGV[4]
tell(ARGV[5], 'updated ' .. ARGV[6] .. ' ' .. record)
redis.call('SET', KEYS[1], record, 'KEEPTTL')
return {'updated', revision}
