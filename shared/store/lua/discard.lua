-- Gives a job up whose record cannot be worked with.
-- writes  whatever ends a job, or removes it
-- args    1 job id, 2 shard, 3 fencing token (not looked at), 4 channel
-- answers 1
local keys = job_keys(KEYS[1])
discard(keys, ARGV[1], ARGV[4])
redis.call('DEL', lease_key(keys, ARGV[2]))
redis.call('ZREM', keys.outstanding, ARGV[1] .. '/' .. ARGV[2])
return 1
