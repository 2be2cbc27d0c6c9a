-- Cancels a job that has not ended yet. Its doorbells stay in the queue: a claim finds the job ended and drops them.
-- writes  KEYS[1] job, KEYS[2] outstanding, and whatever else ends a job
-- args    1 job id, 2 channel
-- answers the status the job is in afterwards, or false when there is none
local keys = job_keys(KEYS[1])
local status = redis.call('HGET', keys.job, 'status')
if not status then return false end
if is_final(status) then return status end
allow_when_full(keys)
end_job(keys, ARGV[1], 'canceled', ARGV[2])
return 'canceled'
