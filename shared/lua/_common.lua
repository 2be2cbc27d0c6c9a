-- Put in front of every script of this folder by shared/ledger.py: what they have in common.
-- Redis's own clock is the only one: the machines around it disagree.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_final(state)
  return state == 'succeeded' or state == 'failed' or state == 'canceled' or state == 'expired'
end

-- Brings a job to a final state: its shards leave the pool's outstanding set, its keys get the lifetime that the
-- job was submitted with, and everybody who waits is told to look.
-- keys: job, request, shards, results, outstanding
local function end_job(keys, job_id, state, channel)
  local job = redis.call('HMGET', keys.job, 'shards', 'ttl_ms')
  redis.call('HSET', keys.job, 'state', state, 'finished_ms', now_ms())
  for shard = 0, tonumber(job[1]) - 1 do
    redis.call('ZREM', keys.outstanding, job_id .. '/' .. shard)
  end
  for _, key in ipairs({keys.job, keys.request, keys.shards, keys.results}) do
    redis.call('PEXPIRE', key, job[2])
  end
  redis.call('PUBLISH', channel, job_id)
end

-- The keys of one job, in the order in which every script but submit gets them.
local function job_keys()
  return {job = KEYS[1], request = KEYS[2], shards = KEYS[3], results = KEYS[4], outstanding = KEYS[5]}
end
