-- Writes a worker's heartbeat, also when Redis is full: a worker without heartbeats is taken for hung, and killed.
-- writes  KEYS[1] workers, KEYS[2] measurements (hashes)
-- args    1 worker, 2 its heartbeat JSON, 3 lifetime of heartbeats in s, 4 lifetime of measurements in s, then
--         measurements: field, value, field, value ...
-- returns 1
redis.call('HDEL', KEYS[1], '')
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
if #ARGV > 4 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 5))
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
return 1
