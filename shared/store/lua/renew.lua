-- Keeps a shard that is being scored, or tells its worker to stop.
-- writes  the lease; on a passed deadline whatever ends a job
-- args    1 job id, 2 shard, 3 fencing token, 4 lease in ms, 5 channel
-- answers live | ended (the job is final or gone) | lost (somebody else has the shard)
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
