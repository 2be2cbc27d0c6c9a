-- Expires the jobs whose deadline has passed.
-- reads   KEYS[3] deadlines
-- writes  everything that ends a job; jobs
-- args    1 prefix of the keys of jobs, 2 maximum number of jobs, 3 channel
-- returns how many jobs expired
local ended = 0
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now_ms(), 'LIMIT', 0, ARGV[2])) do
  local keys = job_keys(ARGV[1] .. job_id)
  or_discard(keys, job_id, ARGV[3], function()
    allow_when_full(keys)
    redis.call('ZREM', KEYS[3], job_id)
    local status = redis.call('HGET', keys.job, 'status')
    if status and not is_final(status) then
      end_job(keys, job_id, 'expired', ARGV[3])
      ended = ended + 1
    elseif not status then
      remove_from_indexes(keys, job_id)
    end
  end)
end
return ended
