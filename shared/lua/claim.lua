-- Takes one shard for one worker, or says why not.
-- reads   KEYS[2] request (string)
-- writes  KEYS[1] job (hash), KEYS[3] shards (hash); on a passed deadline also KEYS[4] results, KEYS[5] outstanding
-- args    1 job id, 2 shard, 3 fencing token, 4 lease in ms, 5 channel
-- answers {verdict, request JSON, ms since the job was accepted}; verdict is
--         run | gone (no such job) | ended (the job is final) | done (the shard is) | held (another lease lives)
local keys = job_keys()
local job = redis.call('HMGET', keys.job, 'state', 'deadline_ms', 'created_ms', 'started_ms')
if not job[1] then return {'gone'} end
if is_final(job[1]) then return {'ended'} end

local now = now_ms()
local deadline = tonumber(job[2])
if deadline > 0 and now >= deadline then
  end_job(keys, ARGV[1], 'expired', ARGV[5])
  return {'ended'}
end

local shard = ARGV[2]
local current = redis.call('HMGET', keys.shards, shard .. ':state', shard .. ':lease_ms', shard .. ':token')
if current[1] == 'done' then return {'done'} end
if current[3] ~= ARGV[3] then
  if current[1] == 'leased' and tonumber(current[2]) > now then return {'held'} end
  -- Counted before the work starts: a worker that dies of it has been counted. Not so for the same token: that is a
  -- claim repeated after a lost answer.
  redis.call('HINCRBY', keys.shards, shard .. ':attempts', 1)
end
redis.call('HSET', keys.shards, shard .. ':state', 'leased', shard .. ':token', ARGV[3],
  shard .. ':lease_ms', now + ARGV[4])
redis.call('HSET', keys.job, 'state', 'running')
if not job[4] then redis.call('HSET', keys.job, 'started_ms', now) end
return {'run', redis.call('GET', keys.request), now - job[3]}
