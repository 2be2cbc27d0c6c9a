-- Claims one shard for one worker, or returns why not.
-- reads   the job's request and documents
-- writes  KEYS[1] job, its shards and lease; KEYS[2] outstanding, load; after a passed deadline, and when a part of the
--         job is missing, everything that ends a job
-- args    1 job id, 2 shard, 3 lease token, 4 lease in ms, 5 channel, 6 1: the worker holds no other shard
-- returns {verdict, request JSON, documents JSON, ms since the job was accepted, the shard's tokens}; verdict is run |
--         gone (no such job) | ended (the job has a final status) | done (the shard is finished) | held (another worker
--         has it) | alone (it must run alone: claim it again when no other shard is held)
local keys = job_keys(KEYS[1])
local job = redis.call('HMGET', keys.job, 'status', 'deadline_ms', 'created_ms', 'started_ms', 'class', 'shards')
if not job[1] then return {'gone'} end
if is_final(job[1]) then return {'ended'} end

allow_when_full(keys)
local now = now_ms()
if now >= tonumber(job[2]) then
  end_job(keys, ARGV[1], 'expired', ARGV[5])
  return {'ended'}
end

local shard = ARGV[2]
local current = redis.call('HMGET', keys.shards, shard .. ':status', shard .. ':token', shard .. ':run_alone',
  shard .. ':pairs', shard .. ':tokens')
if current[1] == 'done' then return {'done'} end
local request, documents = redis.call('GET', keys.request), redis.call('HGET', keys.documents, shard)
if not (current[1] and request and documents) then
  if tonumber(shard) >= tonumber(job[6]) then return {'gone'} end
  fail_damaged_job(keys, ARGV[1], ARGV[5])
  return {'ended'}
end
-- Also when the lease has expired: only the reconciler takes a shard away and counts the crash. The same token is a claim
-- that is repeated after its reply was lost.
if current[1] == 'leased' and current[2] ~= ARGV[3] then return {'held'} end
if current[3] == '1' and ARGV[6] ~= '1' then return {'alone'} end

redis.call('HSET', keys.shards, shard .. ':status', 'leased', shard .. ':token', ARGV[3], shard .. ':resends', 0)
redis.call('SET', lease_key(keys, shard), ARGV[3], 'PX', ARGV[4])
redis.call('ZADD', keys.outstanding, now + ARGV[4], ARGV[1] .. '/' .. shard)
if current[1] ~= 'leased' then add_load(keys, job[5], 'running_', current[4], current[5]) end
if job[1] ~= 'running' then
  redis.call('HSET', keys.job, 'status', 'running', 'started_ms', job[4] or now)
  redis.call('HINCRBY', keys.load, job[5] .. ':running_jobs', 1)
end
return {'run', request, documents, now - job[3], current[5] or 0}
