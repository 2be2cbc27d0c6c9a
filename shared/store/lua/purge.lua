-- Cancels those of the given jobs that belong to one owner and that no worker has started. Lines of batches stay.
-- writes  everything that ends a job
-- args    1 prefix of the keys of jobs, 2 channel, 3 owner, then the ids of jobs of one pool
-- returns how many were canceled
local purged = 0
for at = 4, #ARGV do
  local keys = job_keys(ARGV[1] .. ARGV[at])
  local job = redis.pcall('HMGET', keys.job, 'status', 'owner', 'batch')
  if not job.err and job[1] == 'queued' and job[2] == ARGV[3] and not job[3] then
    allow_when_full(keys)
    end_job(keys, ARGV[at], 'canceled', ARGV[2])
    purged = purged + 1
  end
end
return purged
