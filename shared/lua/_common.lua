-- Put in front of every script of this folder by shared/scripts.py: what they have in common.
-- Redis's own clock is the only one: the machines around it disagree.
--
-- Every script works on one pool and mostly on one job: KEYS[1] job, KEYS[2] outstanding, KEYS[3] deadlines. The other
-- keys of a job are the first one with an ending (see shared/keys.py).
--
-- A shard N is these fields of the job's shards hash:
--   N:state     waiting (not rung for yet) | queued | leased | done
--   N:token     who holds it, or held it last
--   N:crashes   how often a lease ended without a word
--   N:retries   how often an engine asked for another try
--   N:rings     how often the doorbell was rung in vain
--   N:alone     1: it may have brought a worker down, and is tried without company
--   N:accepted  how many finishes were accepted: 1 in the end

local FAR_FUTURE_MS = 9e15

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_final(state)
  return state == 'succeeded' or state == 'failed' or state == 'canceled' or state == 'expired'
end

local function job_keys(job)
  return {job = job, request = job .. ':request', documents = job .. ':documents', shards = job .. ':shards',
    results = job .. ':results', outstanding = KEYS[2], deadlines = KEYS[3]}
end

local function lease_key(keys, shard)
  return keys.job .. ':lease:' .. shard
end

-- A full Redis refuses a script whose first write may take memory, and none whose first write cannot. New jobs are to be
-- refused then; whatever brings an accepted job to its end is not, and calls this first.
local function despite_full_memory(keys)
  redis.call('HDEL', keys.job, '')
end

-- Brings a job to a final state: its shards leave the pool, its keys get the lifetime that the job was submitted with,
-- and everybody who waits is told to look. `result` is what they would find, where that is known and small: told with
-- the news, it saves them the look.
local function end_job(keys, job_id, state, channel, result)
  local job = redis.call('HMGET', keys.job, 'shards', 'ttl_ms', 'idempotency')
  redis.call('HSET', keys.job, 'state', state, 'finished_ms', now_ms())
  for shard = 0, tonumber(job[1]) - 1 do
    redis.call('ZREM', keys.outstanding, job_id .. '/' .. shard)
    redis.call('DEL', lease_key(keys, shard))
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
