-- Put in front of every script of this folder by shared/scripts.py: what they have in common.
-- Redis's own clock is the only one: the machines around it disagree.
--
-- Every script works on one pool and mostly on one job: KEYS[1] job, KEYS[2] outstanding, KEYS[3] deadlines. The other
-- keys of a job are the first one with an ending, the pool's others the second one with another (see shared/keys.py).
--
-- A shard N is these fields of the job's shards hash:
--   N:state     waiting (not rung for yet) | queued | leased | done
--   N:token     who holds it, or held it last
--   N:crashes   how often a lease ended without a word
--   N:retries   how often an engine asked for another try
--   N:rings     how often the doorbell was rung in vain
--   N:alone     1: it may have brought a worker down, and is tried without company
--   N:accepted  how many finishes were accepted: 1 in the end
--   N:pairs, N:tokens   its size: documents, and estimated tokens
--
-- What the pool has to do is counted as it changes, so that whoever scales it reads a few numbers and no job. The load
-- hash has, for each class of work:
--   CLASS:queued_pairs, CLASS:queued_tokens     of the shards that are waiting or queued
--   CLASS:running_pairs, CLASS:running_tokens   of those that are leased
--   CLASS:running_jobs                          jobs that were begun
-- and changed_ms, when a job last came or ended. The jobs themselves stand in a sorted set for each class, by when they
-- came. All this is of jobs that have not ended; one without any shard is none that a worker has to do with.

local FAR_FUTURE_MS = 9e15

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_final(state)
  return state == 'succeeded' or state == 'failed' or state == 'canceled' or state == 'expired'
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
local function despite_full_memory(keys)
  redis.call('HDEL', keys.job, '')
end

-- Adds to the counts of one class: what is queued and what is running, each {pairs, tokens}, and the jobs begun. With
-- `changed_ms` a job has come or ended.
local function count(keys, class, queued, running, begun, changed_ms)
  local names = {class .. ':queued_pairs', class .. ':queued_tokens', class .. ':running_pairs',
    class .. ':running_tokens', class .. ':running_jobs'}
  local old = redis.call('HMGET', keys.load, unpack(names))
  local fields = {names[1], (old[1] or 0) + queued[1], names[2], (old[2] or 0) + queued[2],
    names[3], (old[3] or 0) + running[1], names[4], (old[4] or 0) + running[2], names[5], (old[5] or 0) + begun}
  if changed_ms then
    fields[11], fields[12] = 'changed_ms', changed_ms
  end
  redis.call('HSET', keys.load, unpack(fields))
end

-- The size of a shard from its fields, as it is added, or as it is taken away. A shard of a version that noted none is
-- counted nowhere.
local function size_of(pairs, tokens)
  return {pairs or 0, tokens or 0}
end

local function less(size)
  return {-size[1], -size[2]}
end

-- With nothing outstanding there is no load, whatever was counted: no mistake can keep a pool awake.
local function clear_load(keys, changed_ms)
  redis.call('DEL', keys.load)
  if changed_ms then redis.call('HSET', keys.load, 'changed_ms', changed_ms) end
end

-- What is left of a job that ends without all of its scores: {queued size, running size}.
local function left_of(keys, shards)
  local queued, running = {0, 0}, {0, 0}
  for shard = 0, shards - 1 do
    local fields = redis.call('HMGET', keys.shards, shard .. ':state', shard .. ':pairs', shard .. ':tokens')
    if fields[1] ~= 'done' then
      local sum = fields[1] == 'leased' and running or queued
      sum[1], sum[2] = sum[1] + (fields[2] or 0), sum[2] + (fields[3] or 0)
    end
  end
  return queued, running
end

-- Brings a job to a final state: its shards leave the pool, its keys get the lifetime that the job was submitted with,
-- and everybody who waits is told to look. `last` is the size of the shard with which it succeeded, `result` what they
-- would find, where that is known and small: told with the news, it saves them the look.
local function end_job(keys, job_id, state, channel, last, result)
  local job = redis.call('HMGET', keys.job, 'shards', 'ttl_ms', 'idempotency', 'class', 'state')
  local now = now_ms()
  local shards = tonumber(job[1])
  redis.call('HSET', keys.job, 'state', state, 'finished_ms', now)
  -- Each finish has seen to its own shard.
  for shard = 0, state == 'succeeded' and -1 or shards - 1 do
    redis.call('ZREM', keys.outstanding, job_id .. '/' .. shard)
    redis.call('DEL', lease_key(keys, shard))
  end
  if shards > 0 then
    redis.call('ZREM', jobs_key(keys, job[4]), job_id)
    if redis.call('ZCARD', keys.outstanding) == 0 then
      clear_load(keys, now)
    else
      local queued, running = {0, 0}, last
      if not last then queued, running = left_of(keys, shards) end
      count(keys, job[4], less(queued), less(running), job[5] == 'running' and -1 or 0, now)
    end
  end
  redis.call('ZREM', keys.deadlines, job_id)
  for _, key in ipairs({keys.job, keys.request, keys.documents, keys.shards, keys.results}) do
    redis.call('PEXPIRE', key, job[2])
  end
  if job[3] then redis.call('PEXPIRE', job[3], job[2]) end
  redis.call('PUBLISH', channel, result and job_id .. ' ' .. result or job_id)
end

-- Ends the job because a shard is over its budget, and leaves a note for the operator.
local function bury(keys, job_id, shard, failure, channel, dead, dead_cap)
  local note = {job = job_id, shard = tonumber(shard), model = redis.call('HGET', keys.job, 'model'),
    failure = cjson.decode(failure), crashes = tonumber(redis.call('HGET', keys.shards, shard .. ':crashes') or 0),
    retries = tonumber(redis.call('HGET', keys.shards, shard .. ':retries') or 0), at_ms = now_ms()}
  redis.call('LPUSH', dead, cjson.encode(note))
  redis.call('LTRIM', dead, 0, dead_cap - 1)
  redis.call('HSET', keys.job, 'failure', failure)
  end_job(keys, job_id, 'failed', channel)
end
