-- Discards a job whose data is damaged.
-- writes  everything that ends a job, or deletes it
-- args    1 job id, 2 shard, 3 lease token (ignored), 4 channel
-- returns 1
local keys = job_keys(KEYS[1])
discard(keys, ARGV[1], ARGV[4])
redis.call('DEL', lease_key(keys, ARGV[2]))
redis.call('ZREM', keys.outstanding, ARGV[1] .. '/' .. ARGV[2])
return 1
