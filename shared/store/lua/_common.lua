-- The functions that all scripts share. Prepended to every script by shared/store/scripts.py, after _order.lua, _lists.lua
-- and _webhooks.lua.
-- Redis's clock is the only clock: the machines' clocks differ.
--
-- Every script works on one pool and usually on one job: KEYS[1] job, KEYS[2] outstanding, KEYS[3] deadlines. The other
-- keys of a job and of a pool are derived from these (see shared/keys).
--
-- A shard N has these fields in the job's shards hash:
--   N:status             waiting (not enqueued yet) | queued (in the order, see _order.lua, unless it waits for a
--                        retry) | leased | done
--   N:token              the token of the current or last lease
--   N:crashes            how many leases expired
--   N:retries            how many transient errors its engine reported
--   N:resends            how many times its wake-up message was sent again
--   N:run_alone          1: it may have crashed a worker, and must run alone
--   N:finishes_accepted  how many finishes were accepted: 1 at the end
--   N:pairs, N:tokens    its size: documents, and estimated tokens
--
-- The pool's load is counted as it changes, so that the autoscaler reads a few numbers and no jobs. The load hash has
-- for each class of work:
--   CLASS:pairs, CLASS:tokens                   of shards that are not done
--   CLASS:running_pairs, CLASS:running_tokens   of leased shards
--   CLASS:running_jobs                          jobs that have started
-- and ended_ms, when a job last ended. A sorted set for each class holds the jobs by time of acceptance, and the hash
-- backlog:CLASS holds OWNER -> CLASS:tokens of that owner, and owner_jobs OWNER -> its number of jobs. All of this covers
-- unfinished jobs only; a job without shards needs no worker and is not counted.
--
-- The hash job_counts has how many jobs have ended, by their status, and how many were retried. It is never reset.

-- Shards that are not enqueued yet are never due.
local FAR_FUTURE_MS = 9e15

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_final(status)
  return status == 'succeeded' or status == 'failed' or status == 'canceled' or status == 'expired'
end

local function job_keys(job)
  local pool = string.sub(KEYS[2], 1, -#'outstanding' - 1)
  return {job = job, request = job .. ':request', documents = job .. ':documents', shards = job .. ':shards',
    results = job .. ':results', pool = pool, load = pool .. 'load', outstanding = KEYS[2], deadlines = KEYS[3]}
end

local function jobs_key(keys, class)
  return keys.pool .. 'jobs:' .. class
end

-- The list of an owner's jobs, of which `job_id` is one: rerankq:job:ID -> rerankq:jobs:OWNER.
local function list_key(keys, job_id, owner)
  return string.sub(keys.job, 1, -#job_id - 2) .. 's:' .. owner
end

local function backlog_key(keys, class)
  return keys.pool .. 'backlog:' .. class
end

local function lease_key(keys, shard)
  return keys.job .. ':lease:' .. shard
end

-- A full Redis refuses a script unless its first write allocates no memory. Every script except submit, which must be
-- refused, calls this before its first write.
local function allow_when_full(keys)
  redis.call('HDEL', keys.job, '')
end

-- Adds pairs and tokens to the load of one class; `prefix` is running_ or empty.
local function add_load(keys, class, prefix, pairs, tokens)
  if not pairs or pairs == 0 then return end
  redis.call('HINCRBY', keys.load, class .. ':' .. prefix .. 'pairs', pairs)
  redis.call('HINCRBY', keys.load, class .. ':' .. prefix .. 'tokens', tokens)
end

local function subtract_load(keys, class, prefix, pairs, tokens)
  if pairs then add_load(keys, class, prefix, -pairs, -tokens) end
end

-- Adds tokens to the unfinished work of one owner.
local function add_backlog(keys, class, owner, tokens)
  if owner and redis.call('HINCRBY', backlog_key(keys, class), owner, tokens) <= 0 then
    redis.call('HDEL', backlog_key(keys, class), owner)
  end
end

-- Adds to the number of unfinished jobs of one owner.
local function add_owner_jobs(keys, owner, jobs)
  if owner and redis.call('HINCRBY', keys.pool .. 'owner_jobs', owner, jobs) <= 0 then
    redis.call('HDEL', keys.pool .. 'owner_jobs', owner)
  end
end

-- Without outstanding shards the load is zero, whatever was counted: a wrong count cannot keep a pool running.
local function clear_load(keys, ended_ms)
  redis.call('DEL', keys.load, backlog_key(keys, 'interactive'), backlog_key(keys, 'batch'), keys.pool .. 'owner_jobs')
  clear_order(keys)
  if ended_ms then redis.call('HSET', keys.load, 'ended_ms', ended_ms) end
end

-- Subtracts what is left of a job that has ended; `status` is the one it had before, `shards` how many are unfinished
-- at most, `owner` the one whose limits it counts for, if any.
local function remove_job_load(keys, job_id, class, owner, status, shards, now)
  redis.call('ZREM', jobs_key(keys, class), job_id)
  if redis.call('ZCARD', keys.outstanding) == 0 then return clear_load(keys, now) end

  local left, running = {0, 0}, {0, 0}
  for shard = 0, shards - 1 do
    local fields = redis.call('HMGET', keys.shards, shard .. ':status', shard .. ':pairs', shard .. ':tokens')
    if fields[1] ~= 'done' and fields[2] then
      left[1], left[2] = left[1] + fields[2], left[2] + fields[3]
      if fields[1] == 'leased' then running[1], running[2] = running[1] + fields[2], running[2] + fields[3] end
    end
  end
  subtract_load(keys, class, '', left[1], left[2])
  subtract_load(keys, class, 'running_', running[1], running[2])
  if left[2] > 0 then add_backlog(keys, class, owner, -left[2]) end
  add_owner_jobs(keys, owner, -1)
  if status == 'running' then redis.call('HINCRBY', keys.load, class .. ':running_jobs', -1) end
  redis.call('HSET', keys.load, 'ended_ms', now)
end

-- Adds a process to those that are notified when the job ends. A process's name has 8 characters; the newest 16 stay.
local function add_listener(keys, name)
  local names = redis.call('HGET', keys.job, 'listeners') or ''
  if name ~= '' and not string.find(names, name, 1, true) then
    redis.call('HSET', keys.job, 'listeners', string.sub(name .. ' ' .. names, 1, 16 * 9))
  end
end

-- Counts a job that has ended, or was retried. A foreign value in place of the counts is left to repair.lua.
local function count_job(keys, event)
  redis.pcall('HINCRBY', keys.pool .. 'job_counts', event, 1)
end

-- Ends a job with a final status: removes its shards from the pool, sets the lifetime of its keys, enqueues what its
-- webhooks deliver, and publishes the end to each process that waits for it: `channel` is the prefix of their channels.
-- A small `result` is published with it, which saves the waiting API a read.
local function end_job(keys, job_id, status, channel, result)
  local job = redis.call('HMGET', keys.job, 'shards', 'result_ttl_ms', 'idempotency', 'class', 'status', 'owner',
    'batch', 'listeners', 'webhooks', 'kept_until_ms')
  local now, shards = now_ms(), tonumber(job[1])
  redis.call('HSET', keys.job, 'status', status, 'finished_ms', now)
  -- When all shards are done, each finish has already removed its own.
  local left = status == 'succeeded' and 0 or shards
  for shard = 0, left - 1 do
    redis.call('ZREM', keys.outstanding, job_id .. '/' .. shard)
    redis.call('DEL', lease_key(keys, shard))
    remove_from_order(keys, job[4], job[6], job_id .. '/' .. shard)
  end
  -- The lines of a batch do not count for their owner's limits.
  local counted = not job[7] and job[6]
  if shards > 0 then remove_job_load(keys, job_id, job[4], counted, job[5], left, now) end
  redis.call('ZREM', keys.deadlines, job_id)
  local lifetime_ms = job[10] and math.max(1, job[10] - now) or job[2]
  for _, key in ipairs({keys.job, keys.request, keys.documents, keys.shards, keys.results}) do
    redis.call('PEXPIRE', key, lifetime_ms)
  end
  if job[3] then redis.call('PEXPIRE', job[3], lifetime_ms) end
  count_job(keys, status)
  if job[9] then
    local prefix = string.sub(keys.job, 1, -#('job:' .. job_id) - 1)
    open_outbox(prefix).report(job[6] or '', job_id, 'job.' .. status, status, job[9], now)
  end
  for name in string.gmatch(job[8] or '', '%S+') do
    redis.call('PUBLISH', channel .. ':' .. name, result and job_id .. ' ' .. result or job_id)
  end
end

-- Removes a job that no longer exists from the pool's indexes.
local function remove_from_indexes(keys, job_id)
  redis.call('ZREM', keys.deadlines, job_id)
  redis.call('ZREM', jobs_key(keys, 'interactive'), job_id)
  redis.call('ZREM', jobs_key(keys, 'batch'), job_id)
end

-- Fails a job whose data is incomplete.
local function fail_damaged_job(keys, job_id, channel)
  redis.call('HSET', keys.job, 'failure', cjson.encode({code = 'scoring_failed',
    message = 'the job store has lost a part of this job; send it again'}))
  end_job(keys, job_id, 'failed', channel)
end

-- Fails a job whose data is damaged, or deletes it when even that is impossible, so that it blocks no other job.
local function discard(keys, job_id, channel)
  if pcall(fail_damaged_job, keys, job_id, channel) then return end
  redis.call('DEL', keys.job, keys.request, keys.documents, keys.shards, keys.results)
  -- Nothing is published: waiting callers find that the job does not exist.
  remove_from_indexes(keys, job_id)
end

-- Runs `work` on one job of many. Returns false when it failed; the job is then discarded.
local function or_discard(keys, job_id, channel, work)
  local done, problem = pcall(work)
  if done then return true end
  local reason = type(problem) == 'table' and problem.err or tostring(problem)
  -- Redis refuses writes: not the job's fault.
  for _, refusal in ipairs({'OOM', 'READONLY', 'MISCONF', 'NOREPLICAS', 'NOPERM', 'read only replica'}) do
    if string.find(reason, refusal, 1, true) then error(problem) end
  end
  discard(keys, job_id, channel)
  return false
end

-- Fails the job because a shard exceeded its budget, and adds it to the dead-letter list.
local function dead_letter(keys, job_id, shard, failure, channel, dead, max_dead)
  local entry = {job = job_id, shard = tonumber(shard), model = redis.call('HGET', keys.job, 'model'),
    failure = cjson.decode(failure), crashes = tonumber(redis.call('HGET', keys.shards, shard .. ':crashes') or 0),
    retries = tonumber(redis.call('HGET', keys.shards, shard .. ':retries') or 0), at_ms = now_ms()}
  redis.call('LPUSH', dead, cjson.encode(entry))
  redis.call('LTRIM', dead, 0, max_dead - 1)
  redis.call('HSET', keys.job, 'failure', failure)
  end_job(keys, job_id, 'failed', channel)
end
