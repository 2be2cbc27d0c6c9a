-- Requeues a shard: its worker stops (drain, not charged) or its engine reported a transient error (charged).
-- writes  KEYS[1] job, its shards and lease; KEYS[2] outstanding, load, order; KEYS[4] dead letters, and everything that ends
--         a job when the retry budget is exceeded
-- args    1 job id, 2 shard, 3 lease token, 4 drain | transient, 5 ms until the reconciler checks it, 6 transient
--         errors allowed, 7 failure JSON, 8 channel, 9 length of the dead-letter list
-- returns accepted | failed (the budget is exceeded, the job has failed) | stale | ended, as finish does
local keys = job_keys(KEYS[1])
local job = redis.call('HMGET', keys.job, 'status', 'class', 'owner', 'priority', 'created_ms')
if not job[1] or is_final(job[1]) then return 'ended' end

local shard = ARGV[2]
local current = redis.call('HMGET', keys.shards, shard .. ':status', shard .. ':token', shard .. ':pairs',
  shard .. ':tokens')
if current[1] ~= 'leased' or current[2] ~= ARGV[3] then return 'stale' end

allow_when_full(keys)
if ARGV[4] == 'transient' and redis.call('HINCRBY', keys.shards, shard .. ':retries', 1) > tonumber(ARGV[6]) then
  dead_letter(keys, ARGV[1], shard, ARGV[7], ARGV[8], KEYS[4], tonumber(ARGV[9]))
  return 'failed'
end
subtract_load(keys, job[2], 'running_', current[3], current[4])
redis.call('HSET', keys.shards, shard .. ':status', 'queued')
redis.call('HDEL', keys.shards, shard .. ':token')
redis.call('DEL', lease_key(keys, shard))
redis.call('ZADD', keys.outstanding, now_ms() + ARGV[5], ARGV[1] .. '/' .. shard)
-- A shard that waits for a retry enters the order when the reconciler finds it due.
if ARGV[4] == 'drain' then
  add_to_order(keys, {class = job[2], owner = job[3], priority = job[4], created_ms = job[5]}, {ARGV[1] .. '/' .. shard})
end
return 'accepted'
