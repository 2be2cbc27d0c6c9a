-- Accepts a job: its record, its request and its wake-up messages are written together or not at all.
-- writes  KEYS[1] job and its request, documents, shards; KEYS[2] outstanding, KEYS[3] deadlines, load, jobs, KEYS[4]
--         queue (list), KEYS[5] idempotency (string) when a key was sent; without shards everything that ends a job
-- args    1 job id, 2 request JSON, 3 lifetime of the result in ms, 4 maximum lifetime of an unfinished job in ms, 5 ms
--         until the deadline, 6 model, 7 dialect, 8 owner, 9 class, 10 pairs, 11 number of shards, 12 fingerprint of
--         the request (with KEYS[5]), 13 ms until an unclaimed message is sent again, 14 JSON of the known scores,
--         empty when there are none, 15 channel, then each shard's documents JSON, pairs and tokens, then one Celery
--         message for each shard enqueued at once
-- returns {accepted | existing | conflict, the job's id, time of acceptance in ms}: existing and conflict, without a
--         time, when KEYS[5] refers to a job of the same or of another request
local FIXED_ARGS = 15
local ARGS_PER_SHARD = 3
local keys = job_keys(KEYS[1])

-- A second submit of the same job repeats the first one after a lost reply: it changes nothing.
local created = redis.call('HGET', keys.job, 'created_ms')
if created then return {'accepted', ARGV[1], created} end
if KEYS[5] then
  local known = redis.call('GET', KEYS[5])
  if known then
    local job_id, fingerprint = string.match(known, '^(%S+) (%S+)$')
    return {fingerprint == ARGV[12] and 'existing' or 'conflict', job_id}
  end
end

local now = now_ms()
local shards = tonumber(ARGV[11])
local messages = FIXED_ARGS + ARGS_PER_SHARD * shards
local enqueued = #ARGV - messages
local deadline = now + ARGV[5]

redis.call('SET', keys.request, ARGV[2], 'PX', ARGV[4])
redis.call('HSET', keys.job, 'status', 'queued', 'model', ARGV[6], 'dialect', ARGV[7], 'owner', ARGV[8],
  'class', ARGV[9], 'pairs', ARGV[10], 'shards', shards, 'shards_left', shards, 'next_shard', enqueued, 'created_ms', now,
  'deadline_ms', deadline, 'result_ttl_ms', ARGV[3])
redis.call('ZADD', keys.deadlines, deadline, ARGV[1])
local size = {0, 0}
for shard = 0, shards - 1 do
  local documents, pairs, tokens = unpack(ARGV, FIXED_ARGS + ARGS_PER_SHARD * shard + 1, FIXED_ARGS + ARGS_PER_SHARD * (shard + 1))
  redis.call('HSET', keys.documents, shard, documents)
  local is_enqueued = shard < enqueued
  redis.call('HSET', keys.shards, shard .. ':status', is_enqueued and 'queued' or 'waiting', shard .. ':pairs', pairs,
    shard .. ':tokens', tokens)
  size = {size[1] + pairs, size[2] + tokens}
  redis.call('ZADD', keys.outstanding, is_enqueued and now + ARGV[13] or FAR_FUTURE_MS, ARGV[1] .. '/' .. shard)
  if is_enqueued then redis.call('LPUSH', KEYS[4], ARGV[messages + 1 + shard]) end
end
if ARGV[14] ~= '' then redis.call('HSET', keys.documents, 'known_scores', ARGV[14]) end
for _, key in ipairs({keys.job, keys.documents, keys.shards}) do redis.call('PEXPIRE', key, ARGV[4]) end
if KEYS[5] then
  redis.call('SET', KEYS[5], ARGV[1] .. ' ' .. ARGV[12], 'PX', ARGV[4])
  redis.call('HSET', keys.job, 'idempotency', KEYS[5])
end
redis.call('HSET', keys.job, 'pairs_known', ARGV[10] - size[1])
if shards > 0 then
  redis.call('ZADD', jobs_key(keys, ARGV[9]), now, ARGV[1])
  add_load(keys, ARGV[9], '', size[1], size[2])
else
  -- Every pair's score is known.
  end_job(keys, ARGV[1], 'succeeded', ARGV[15])
end
return {'accepted', ARGV[1], now}
