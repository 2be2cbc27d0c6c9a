-- Says where a worker stands, also when Redis is full: whoever is not heard is taken for gone, and killed.
-- writes  KEYS[1] workers, KEYS[2] measured (hashes)
-- args    1 worker, 2 its heartbeat JSON, 3 lifetime of the heartbeats in s, 4 lifetime of what was measured in s,
--         then what was measured: field, value, field, value ...
-- answers 1
redis.call('HDEL', KEYS[1], '')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
if #ARGV > 4 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 5))
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
return 1
