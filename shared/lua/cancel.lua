-- Cancels a job that has not ended yet. Its doorbells stay in the queue: a claim finds the job ended and drops them.
-- writes  KEYS[1] job (hash), KEYS[5] outstanding (zset), and the lifetime of KEYS[2] request, KEYS[3] shards,
--         KEYS[4] results
-- args    1 job id, 2 channel
-- answers the state the job is in afterwards, or false when there is none
local keys = job_keys()
local state = redis.call('HGET', keys.job, 'state')
if not state then return false end
if is_final(state) then return state end
end_job(keys, ARGV[1], 'canceled', ARGV[2])
return 'canceled'
