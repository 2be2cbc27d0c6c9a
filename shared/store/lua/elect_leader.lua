-- Takes or keeps the reconciler's lock, also when Redis is full.
-- writes  KEYS[1] the lock (string)
-- args    1 who asks, 2 ms until it must be kept again
-- answers 1 when it is held now, 0 when somebody else has it
redis.call('HDEL', KEYS[1] .. ':nothing', '')
-- Something else in its place would keep everybody from leading.
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then redis.call('DEL', KEYS[1]) end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
