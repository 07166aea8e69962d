-- Push out the safety ttl of the locks and values of a session, a part of what it owns a call, and say what it holds.
-- Its members have a renewal of their own, and are seen to here where that was not just now.
--
-- KEYS  1 owned  2 members  3 leases  4 ephemerals
-- ARGV  1 prefix   2 session   3 safety ttl, ms   4 where to go on: 0 to begin   5 about how many a call
-- Answer  {where to go on or 0, then path, nonce and token of each lock held ...}
local prefix, session, safety = ARGV[1], ARGV[2], ARGV[3]
-- First, since another type is not to live on by it.
local scan = redis.call('SSCAN', KEYS[1], ARGV[4], 'COUNT', ARGV[5])
local life = number(record_ttl(safety, KEYS[2]))
redis.call('PEXPIRE', KEYS[1], life)
extend_ttl(KEYS[2], life)
extend_ttl(KEYS[3], life)
extend_ttl(KEYS[4], safety)
local answer = {scan[1]}

local function extend(path)
  local kind, rest = string.match(path, '^(%l+)/(.*)$')
  if kind == 'locks' then
    local record = head_of(prefix .. path)
    local holder, nonce = holder_in(record)
    if holder == session then
      redis.call('PEXPIRE', prefix .. path, safety)
      extend_ttl(prefix .. 'queues/' .. rest, safety)
      return nonce, string.match(record, '"token":(%d+)')
    end
  elseif kind == 'shared' then
    local name, nonce = string.match(rest, '^(%S+) (%d+)$')
    local record = redis.call('HGET', prefix .. 'shared/' .. name, session .. ' ' .. nonce)
    if record then
      extend_ttl(prefix .. 'shared/' .. name, safety)
      extend_ttl(prefix .. 'queues/' .. name, safety)
      return nonce, string.match(record, '"token":(%d+)')
    end
  elseif kind == 'members' then
    local left = redis.call('PTTL', prefix .. path)
    if left >= 0 and left < safety * 0.75 and session_in(head_of(prefix .. path)) == session then
      redis.call('PEXPIRE', prefix .. path, life)
    end
  elseif kind == 'ephemerals' then
    local head = head_of(prefix .. path)
    local owner, ends = string.match(head, '^{"v":1,"session":"([^"]*)",.-"until":(%d+)')
    if owner == session then
      -- At its end it is to run out: a PEXPIRE to no time at all would be told as its deletion.
      local left = math.max(1, tonumber(ends) - now_ms())
      redis.call('PEXPIRE', prefix .. path, ends == '0' and safety or number(math.min(left, safety)))
    end
  end
end

for _, path in ipairs(scan[2]) do
  -- A key of another type is one thing less that is ours, not the end of the others.
  local ok, nonce, token = pcall(extend, path)
  if ok and token then
    answer[#answer + 1] = path
    answer[#answer + 1] = nonce
    answer[#answer + 1] = token
  end
end
return answer
