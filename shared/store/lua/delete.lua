-- Deletes all keys of a job, canceling it first when it has not ended.
-- deletes KEYS[1] job and its request, documents, shards, results, idempotency; writes KEYS[2] outstanding, the
--         owner's list of jobs
-- args    1 job id, 2 channel
-- returns 1, or 0 when the job does not exist
local keys = job_keys(KEYS[1])
local job = redis.call('HMGET', keys.job, 'status', 'idempotency', 'owner')
if not job[1] then return 0 end
allow_when_full(keys)
if not is_final(job[1]) then end_job(keys, ARGV[1], 'canceled', ARGV[2]) end
redis.call('DEL', keys.job, keys.request, keys.documents, keys.shards, keys.results)
if job[2] then redis.call('DEL', job[2]) end
if job[3] then redis.pcall('ZREM', list_key(keys, ARGV[1], job[3]), ARGV[1]) end
return 1
