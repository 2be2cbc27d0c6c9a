-- Pushes wake-up messages, also when Redis is full: an accepted job must be scored then, too.
-- writes  KEYS[1] queue (list)
-- args    1 front | back: front for shards that were enqueued before, then one Celery message for each shard, in order
-- returns how many were pushed
redis.call('PERSIST', KEYS[1])
-- Workers pop from the right.
if ARGV[1] == 'front' then
  for message = #ARGV, 2, -1 do redis.call('RPUSH', KEYS[1], ARGV[message]) end
else
  for message = 2, #ARGV do redis.call('LPUSH', KEYS[1], ARGV[message]) end
end
return #ARGV - 1
