-- Removes every trace of a job, canceling it first when it has not ended.
-- deletes KEYS[1] job, KEYS[2] request, KEYS[3] shards, KEYS[4] results; writes KEYS[5] outstanding (zset)
-- args    1 job id, 2 channel
-- answers 1, or 0 when there was none
local keys = job_keys()
local state = redis.call('HGET', keys.job, 'state')
if not state then return 0 end
if not is_final(state) then end_job(keys, ARGV[1], 'canceled', ARGV[2]) end
redis.call('DEL', keys.job, keys.request, keys.shards, keys.results)
return 1
