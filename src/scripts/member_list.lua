-- The roster's index, a chunk a call, or 'same' if nothing changed since the caller's last listing.
-- A group without a revision is never the same: it may have been flushed since.
--
-- KEYS  1 members  2 leases  3 revision
-- ARGV  1 prefix   2 revision and 3 count that the caller knows, or ''   4 '-inf', or '(' and the last incarnation
--       5 most entries a call
-- Answer  {'same', ms to the earliest deadline or -1}
--         {'part', that ms, revision, count, 1 if more follows or 0, then id, incarnation, revision for each}
--         where an entry's revision is 0: no readable record; -1: another program's text
local _, revision = revision_of(KEYS[3])
local count = redis.call('ZCARD', KEYS[1])
if revision ~= '0' and ARGV[2] == revision and tonumber(ARGV[3]) == count then
  return {'same', deadline_in(KEYS[2])}
end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[4], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[5])
local answer = {'part', deadline_in(KEYS[2]), revision, count, #found == 2 * ARGV[5] and 1 or 0}
for i = 1, #found, 2 do
  local head = head_of(ARGV[1] .. 'members/' .. found[i])
  local written = '0'
  if type(head) == 'string' and (head ~= '' or redis.call('EXISTS', ARGV[1] .. 'members/' .. found[i]) == 1) then
    written = string.match(head, '^{"v":1,.-"revision":(%d+),') or '-1'
  end
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = number(tonumber(found[i + 1]))
  answer[#answer + 1] = written
end
return answer
