-- Accepts a shard's scores, once: the first finish under the live token wins, every other one is dropped.
-- writes  KEYS[1] job (hash), KEYS[3] shards (hash), KEYS[4] results (hash), KEYS[5] outstanding (zset);
--         with the last shard also the lifetime of KEYS[2] request
-- args    1 job id, 2 shard, 3 fencing token, 4 scores JSON, 5 channel, 6 ceiling on the life of the results in ms
-- answers accepted | stale (the token is not the live one) | ended (the job is final or gone)
local keys = job_keys()
local state = redis.call('HGET', keys.job, 'state')
if not state or is_final(state) then return 'ended' end

local shard = ARGV[2]
local current = redis.call('HMGET', keys.shards, shard .. ':state', shard .. ':token')
if current[1] ~= 'leased' or current[2] ~= ARGV[3] then return 'stale' end

redis.call('HSET', keys.shards, shard .. ':state', 'done')
redis.call('HSET', keys.results, shard, ARGV[4])
redis.call('PEXPIRE', keys.results, ARGV[6])
redis.call('ZREM', keys.outstanding, ARGV[1] .. '/' .. shard)
if redis.call('HINCRBY', keys.job, 'left', -1) == 0 then
  end_job(keys, ARGV[1], 'succeeded', ARGV[5])
end
return 'accepted'
