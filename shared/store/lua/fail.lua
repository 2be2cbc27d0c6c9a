-- Fails a job because one of its shards can never be scored.
-- writes  KEYS[1] job, KEYS[2] outstanding, and everything else that ends a job
-- args    1 job id, 2 shard, 3 lease token, 4 failure JSON, 5 channel
-- returns accepted | stale | ended, as finish does
local keys = job_keys(KEYS[1])
local status = redis.call('HGET', keys.job, 'status')
if not status or is_final(status) then return 'ended' end
local current = redis.call('HMGET', keys.shards, ARGV[2] .. ':status', ARGV[2] .. ':token')
if current[1] ~= 'leased' or current[2] ~= ARGV[3] then return 'stale' end

allow_when_full(keys)
redis.call('HSET', keys.job, 'failure', ARGV[4])
end_job(keys, ARGV[1], 'failed', ARGV[5])
return 'accepted'
