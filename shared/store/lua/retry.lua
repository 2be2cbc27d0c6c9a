-- Retries a failed or expired job: finished shards are kept, the others start again with new budgets.
-- writes  KEYS[1] job and its shards; KEYS[2] outstanding, KEYS[3] deadlines, load, jobs, backlog, order, job_counts
-- args    1 job id, 2 maximum lifetime of an unfinished job in ms, 3 ms until the deadline
-- returns {the shards to enqueue} | false (the job does not exist, or has neither failed nor expired)
local keys = job_keys(KEYS[1])
local job = redis.call('HMGET', keys.job, 'status', 'shards', 'idempotency', 'class', 'owner', 'priority',
  'created_ms', 'batch', 'kept_until_ms')
if job[1] ~= 'failed' and job[1] ~= 'expired' then return false end

local now = now_ms()
local deadline = math.min(now + ARGV[3], tonumber(job[9]) or math.huge)
local wake_ups, members = {}, {}
local size = {0, 0}
redis.call('HSET', keys.job, 'status', 'queued', 'next_shard', job[2], 'deadline_ms', deadline)
redis.call('HDEL', keys.job, 'failure', 'finished_ms', 'streamed')
redis.call('ZADD', keys.deadlines, deadline, ARGV[1])
for shard = 0, tonumber(job[2]) - 1 do
  local fields = redis.call('HMGET', keys.shards, shard .. ':status', shard .. ':pairs', shard .. ':tokens')
  if fields[1] ~= 'done' then
    size = {size[1] + (fields[2] or 0), size[2] + (fields[3] or 0)}
    redis.call('HSET', keys.shards, shard .. ':status', 'queued')
    redis.call('HDEL', keys.shards, shard .. ':token', shard .. ':crashes', shard .. ':retries', shard .. ':resends', shard .. ':run_alone')
    redis.call('ZADD', keys.outstanding, now, ARGV[1] .. '/' .. shard)
    table.insert(wake_ups, shard)
    table.insert(members, ARGV[1] .. '/' .. shard)
  end
end
redis.call('ZADD', jobs_key(keys, job[4]), now, ARGV[1])
add_load(keys, job[4], '', size[1], size[2])
if not job[8] then
  add_backlog(keys, job[4], job[5], size[2])
  add_owner_jobs(keys, job[5], 1)
end
add_to_order(keys, {class = job[4], owner = job[5], priority = job[6], created_ms = job[7]}, members)
for _, key in ipairs({keys.job, keys.request, keys.documents, keys.shards, keys.results}) do
  redis.call('PEXPIRE', key, ARGV[2])
end
if job[3] then redis.call('PEXPIRE', job[3], ARGV[2]) end
count_job(keys, 'retried')
return wake_ups
