-- Acquires or renews the reconciler's leadership, also when Redis is full.
-- writes  KEYS[1] the leader (string)
-- args    1 candidate, 2 ms until it must renew
-- returns 1 when the candidate is the leader, 0 when another one is
redis.call('HDEL', KEYS[1] .. ':nothing', '')
-- A key of the wrong type would block every election.
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then redis.call('DEL', KEYS[1]) end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
