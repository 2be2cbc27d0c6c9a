-- Put in front of every script of this folder by shared/store/scripts.py: what they have in common.
-- Redis's own clock is the only one: the machines around it disagree.
--
-- Every script works on one pool and mostly on one job: KEYS[1] job, KEYS[2] outstanding, KEYS[3] deadlines. The other
-- keys of a job are the first one with an ending, the pool's others the second one with another (see shared/keys/__init__.py).
--
-- A shard N is these fields of the job's shards hash:
--   N:status     waiting (not rung for yet) | queued | leased | done
--   N:token     who holds it, or held it last
--   N:crashes   how often a lease ended without a word
--   N:retries   how often an engine asked for another try
--   N:resends     how often the doorbell was rung in vain
--   N:run_alone     1: it may have brought a worker down, and is tried without company
--   N:finishes_accepted  how many finishes were accepted: 1 in the end
--   N:pairs, N:tokens   its size: documents, and estimated tokens
--
-- What the pool has to do is counted as it changes, so that whoever scales it reads a few numbers and no job. The load
-- hash has, for each class of work:
--   CLASS:pairs, CLASS:tokens                   of the shards that are not done
--   CLASS:running_pairs, CLASS:running_tokens   of those that are leased
--   CLASS:running_jobs                          jobs that were begun
-- and ended_ms, when a job last ended. The jobs themselves stand in a sorted set for each class, by when they came. All
-- this is of jobs that have not ended; one without any shard is none that a worker has to do with.

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

local function lease_key(keys, shard)
  return keys.job .. ':lease:' .. shard
end

-- A full Redis refuses a script whose first write may take memory, and none whose first write cannot. New jobs are to be
-- refused then; whatever brings an accepted job to its end is not, and calls this first.
local function allow_when_full(keys)
  redis.call('HDEL', keys.job, '')
end

-- Adds to what is counted of one class; `prefix` is running_ or empty. A shard that was accepted before sizes were noted
-- has none, and counts nowhere.
local function count(keys, class, prefix, pairs, tokens)
  if not pairs or pairs == 0 then return end
  redis.call('HINCRBY', keys.load, class .. ':' .. prefix .. 'pairs', pairs)
  redis.call('HINCRBY', keys.load, class .. ':' .. prefix .. 'tokens', tokens)
end

local function subtract_load(keys, class, prefix, pairs, tokens)
  if pairs then count(keys, class, prefix, -pairs, -tokens) end
end

-- With nothing outstanding there is no load, whatever was counted: no mistake can keep a pool awake.
local function clear_load(keys, ended_ms)
  redis.call('DEL', keys.load)
  if ended_ms then redis.call('HSET', keys.load, 'ended_ms', ended_ms) end
end

-- A job that was in `status` has ended. Unless it succeeded, what is left of it is counted off.
local function remove_job_load(keys, job_id, class, status, shards, now)
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
  if status == 'running' then redis.call('HINCRBY', keys.load, class .. ':running_jobs', -1) end
  redis.call('HSET', keys.load, 'ended_ms', now)
end

-- Brings a job to a final status: its shards leave the pool, its keys get the lifetime that the job was submitted with,
-- and everybody who waits is told to look. `result` is what they would find, where that is known and small: told with
-- the news, it saves them the look.
local function end_job(keys, job_id, status, channel, result)
  local job = redis.call('HMGET', keys.job, 'shards', 'result_ttl_ms', 'idempotency', 'class', 'status')
  local now, shards = now_ms(), tonumber(job[1])
  redis.call('HSET', keys.job, 'status', status, 'finished_ms', now)
  -- Where all shards are done, each finish has seen to its own.
  local left = status == 'succeeded' and 0 or shards
  for shard = 0, left - 1 do
    redis.call('ZREM', keys.outstanding, job_id .. '/' .. shard)
    redis.call('DEL', lease_key(keys, shard))
  end
  if shards > 0 then remove_job_load(keys, job_id, job[4], job[5], left, now) end
  redis.call('ZREM', keys.deadlines, job_id)
  for _, key in ipairs({keys.job, keys.request, keys.documents, keys.shards, keys.results}) do
    redis.call('PEXPIRE', key, job[2])
  end
  if job[3] then redis.call('PEXPIRE', job[3], job[2]) end
  redis.call('PUBLISH', channel, result and job_id .. ' ' .. result or job_id)
end

-- What the pool has of a job that is gone.
local function forget_job(keys, job_id)
  redis.call('ZREM', keys.deadlines, job_id)
  redis.call('ZREM', jobs_key(keys, 'interactive'), job_id)
  redis.call('ZREM', jobs_key(keys, 'batch'), job_id)
end

-- Ends a job of which the store has lost a part.
local function fail_damaged_job(keys, job_id, channel)
  redis.call('HSET', keys.job, 'failure', cjson.encode({code = 'scoring_failed',
    message = 'the job store has lost a part of this job; send it again'}))
  end_job(keys, job_id, 'failed', channel)
end

-- Ends a job whose record cannot be worked with, and removes it where even that fails: it shall stand in nobody's way.
local function discard(keys, job_id, channel)
  if pcall(fail_damaged_job, keys, job_id, channel) then return end
  redis.call('DEL', keys.job, keys.request, keys.documents, keys.shards, keys.results)
  -- Nobody is told: that it ended would be no news of a job that is gone. Who waits for it notices.
  forget_job(keys, job_id)
end

-- Does `work` on one job of many; answers whether that was possible. One that it is not possible on is given up.
local function or_discard(keys, job_id, channel, work)
  local done, problem = pcall(work)
  if done then return true end
  local reason = type(problem) == 'table' and problem.err or tostring(problem)
  -- Redis refuses to write: no fault of the job's.
  for _, refusal in ipairs({'OOM', 'READONLY', 'MISCONF', 'NOREPLICAS', 'NOPERM', 'read only replica'}) do
    if string.find(reason, refusal, 1, true) then error(problem) end
  end
  discard(keys, job_id, channel)
  return false
end

-- Ends the job because a shard is over its budget, and leaves a note for the operator.
local function dead_letter(keys, job_id, shard, failure, channel, dead, dead_cap)
  local note = {job = job_id, shard = tonumber(shard), model = redis.call('HGET', keys.job, 'model'),
    failure = cjson.decode(failure), crashes = tonumber(redis.call('HGET', keys.shards, shard .. ':crashes') or 0),
    retries = tonumber(redis.call('HGET', keys.shards, shard .. ':retries') or 0), at_ms = now_ms()}
  redis.call('LPUSH', dead, cjson.encode(note))
  redis.call('LTRIM', dead, 0, dead_cap - 1)
  redis.call('HSET', keys.job, 'failure', failure)
  end_job(keys, job_id, 'failed', channel)
end
