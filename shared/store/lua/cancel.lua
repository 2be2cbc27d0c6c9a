-- Cancels a job that has not ended yet. Its doorbells stay in the queue: a claim finds the job ended and drops them.
-- writes  KEYS[1] job, KEYS[2] outstanding, and whatever else ends a job
-- args    1 job id, 2 channel
-- answers the state the job is in afterwards, or false when there is none
local keys = job_keys(KEYS[1])
local state = redis.call('HGET', keys.job, 'state')
if not state then return false end
if is_final(state) then return state end
despite_full_memory(keys)
end_job(keys, ARGV[1], 'canceled', ARGV[2])
return 'canceled'
