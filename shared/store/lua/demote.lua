-- Moves an interactive job that no caller waits for to the batch class. Shards that workers hold are not interrupted.
-- writes  KEYS[1] job and its shards; KEYS[2] outstanding, load, jobs, backlog, order; KEYS[4] interactive queue,
--         KEYS[5] batch queue (lists)
-- args    1 job id
-- returns 1, or 0 when the job has ended, does not exist, or is batch work
local keys = job_keys(KEYS[1])
local job = redis.call('HMGET', keys.job, 'status', 'class', 'shards', 'owner', 'priority', 'created_ms')
if not job[1] or is_final(job[1]) or job[2] ~= 'interactive' then return 0 end

allow_when_full(keys)
local left, running, members = {0, 0}, {0, 0}, {}
for shard = 0, tonumber(job[3]) - 1 do
  local fields = redis.call('HMGET', keys.shards, shard .. ':status', shard .. ':pairs', shard .. ':tokens')
  if fields[1] ~= 'done' and fields[2] then
    left[1], left[2] = left[1] + fields[2], left[2] + fields[3]
    if fields[1] == 'leased' then running[1], running[2] = running[1] + fields[2], running[2] + fields[3] end
    local member = ARGV[1] .. '/' .. shard
    if remove_from_order(keys, 'interactive', job[4], member) == 1 then table.insert(members, member) end
  end
end
redis.call('HSET', keys.job, 'class', 'batch')
redis.call('ZREM', jobs_key(keys, 'interactive'), ARGV[1])
redis.call('ZADD', jobs_key(keys, 'batch'), job[6], ARGV[1])
for class, sign in pairs({interactive = -1, batch = 1}) do
  add_load(keys, class, '', sign * left[1], sign * left[2])
  add_load(keys, class, 'running_', sign * running[1], sign * running[2])
  add_backlog(keys, class, job[4], sign * left[2])
  if job[1] == 'running' then redis.call('HINCRBY', keys.load, class .. ':running_jobs', sign) end
end
add_to_order(keys, {class = 'batch', owner = job[4], priority = job[5], created_ms = job[6]}, members)
-- Any message wakes a worker for any shard of its class. A queue of the wrong type is repaired by the reconciler.
for _ = 1, #members do redis.pcall('RPOPLPUSH', KEYS[4], KEYS[5]) end
return 1
