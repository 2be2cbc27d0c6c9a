-- Ends a job because one of its shards cannot be scored.
-- reads   KEYS[3] shards (hash)
-- writes  KEYS[1] job (hash), KEYS[5] outstanding (zset), and the lifetime of KEYS[2] request, KEYS[3] shards,
--         KEYS[4] results
-- args    1 job id, 2 shard, 3 fencing token, 4 failure JSON, 5 channel
-- answers accepted | stale | ended, as finish does
local keys = job_keys()
local state = redis.call('HGET', keys.job, 'state')
if not state or is_final(state) then return 'ended' end
if redis.call('HGET', keys.shards, ARGV[2] .. ':token') ~= ARGV[3] then return 'stale' end

redis.call('HSET', keys.job, 'failure', ARGV[4])
end_job(keys, ARGV[1], 'failed', ARGV[5])
return 'accepted'
