-- The paths of an index and their revisions, in the order of the revisions, a chunk a call, or 'same' if nothing has
-- changed: a value that is set takes a higher revision than all before, so a change changes the count or the highest.
--
-- KEYS  1 ephemerals or persistent  2 leases
-- ARGV  1 what the paths begin with, encoded   2 count and 3 highest revision that the caller knows, or ''
--       4 '-inf', or '(' and the last revision   5 how many to read
-- Answer  {'same', ms to the earliest deadline or -1}
--         {'part', that ms, count, highest revision, where to go on or '', then path and revision for each}
local count = redis.call('ZCARD', KEYS[1])
local highest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] or 0
highest = number(tonumber(highest))
if ARGV[2] ~= '' and tonumber(ARGV[2]) == count and ARGV[3] == highest then
  return {'same', deadline_in(KEYS[2])}
end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[4], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[5])
local answer = {'part', deadline_in(KEYS[2]), count, highest, ''}
for i = 1, #found, 2 do
  if string.sub(found[i], 1, #ARGV[1]) == ARGV[1] then
    answer[#answer + 1] = found[i]
    answer[#answer + 1] = number(tonumber(found[i + 1]))
  end
end
if #found == 2 * ARGV[5] then
  answer[5] = number(tonumber(found[#found]))
end
return answer
