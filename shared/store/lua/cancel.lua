-- Cancels a job that has not ended. Its messages stay in the queue: a claim finds the job ended and skips them.
-- writes  KEYS[1] job, KEYS[2] outstanding, and everything else that ends a job
-- args    1 job id, 2 channel
-- returns the job's status afterwards, or false when it does not exist
local keys = job_keys(KEYS[1])
local status = redis.call('HGET', keys.job, 'status')
if not status then return false end
if is_final(status) then return status end
allow_when_full(keys)
end_job(keys, ARGV[1], 'canceled', ARGV[2])
return 'canceled'
