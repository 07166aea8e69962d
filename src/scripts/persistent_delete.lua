-- Delete a persistent value.
--
-- KEYS  1 value  2 persistent
-- ARGV  1 path, encoded
-- Answer  1 it was deleted | 0 it was not there
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
