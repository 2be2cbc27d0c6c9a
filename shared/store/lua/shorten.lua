-- Shortens the time for which a job can be read: from now if it has ended, otherwise from its end.
-- writes  KEYS[1] job; the lifetime of its request, documents, shards, results
-- args    1 job id, 2 ms
-- returns 1, or 0 when the job does not exist
local keys = job_keys(KEYS[1])
local job = redis.call('HMGET', keys.job, 'status', 'result_ttl_ms')
if not job[1] then return 0 end
allow_when_full(keys)
if is_final(job[1]) then
  for _, key in ipairs({keys.job, keys.request, keys.documents, keys.shards, keys.results}) do
    if redis.call('PTTL', key) > tonumber(ARGV[2]) then redis.call('PEXPIRE', key, ARGV[2]) end
  end
elseif tonumber(job[2]) > tonumber(ARGV[2]) then
  redis.call('HSET', keys.job, 'result_ttl_ms', ARGV[2])
end
return 1
