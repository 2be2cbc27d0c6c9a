-- Pushes doorbells, also when Redis is full: an accepted job must be scored then too.
-- writes  KEYS[1] queue (list)
-- args    one Celery message for each doorbell
-- answers the length of the queue
redis.call('PERSIST', KEYS[1])
return redis.call('LPUSH', KEYS[1], unpack(ARGV))
