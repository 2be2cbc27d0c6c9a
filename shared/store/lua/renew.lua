-- Renews the lease of a shard, or tells its worker to stop.
-- writes  the lease; after a passed deadline everything that ends a job
-- args    1 job id, 2 shard, 3 lease token, 4 lease in ms, 5 channel
-- returns live | ended (the job has a final status or does not exist) | lost (another worker has the shard)
local keys = job_keys(KEYS[1])
local job = redis.call('HMGET', keys.job, 'status', 'deadline_ms')
if not job[1] or is_final(job[1]) then return 'ended' end

allow_when_full(keys)
if now_ms() >= tonumber(job[2]) then
  end_job(keys, ARGV[1], 'expired', ARGV[5])
  return 'ended'
end
local current = redis.call('HMGET', keys.shards, ARGV[2] .. ':status', ARGV[2] .. ':token')
if current[1] ~= 'leased' or current[2] ~= ARGV[3] then return 'lost' end
redis.call('SET', lease_key(keys, ARGV[2]), ARGV[3], 'PX', ARGV[4])
return 'live'
