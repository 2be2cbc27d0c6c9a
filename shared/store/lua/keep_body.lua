-- Keeps a delivery's body, so that every try sends the same bytes. The first one stays.
-- writes  KEYS[1] delivery
-- args    1 body
-- returns the body that is kept, or false when the delivery does not exist
redis.call('HDEL', KEYS[1], '')
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
redis.call('HSETNX', KEYS[1], 'body', ARGV[1])
return redis.call('HGET', KEYS[1], 'body')
