-- Shared by the scripts about presence: put before them, after prelude.lua.
--
-- server_run()    which run of the server this is, or nil where the user may not ask. A restarted server, and a replica
--                 that was promoted, is another run.

local function server_run()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%x+)') or nil
end
