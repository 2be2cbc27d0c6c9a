-- Accepts a job: its record, its request and its doorbells appear together or not at all.
-- writes  KEYS[1] job and its request, documents, shards; KEYS[2] outstanding, KEYS[3] deadlines, load, jobs, KEYS[4]
--         queue (list), KEYS[5] idempotency (string), when there is one; without any shard whatever ends a job
-- args    1 job id, 2 request JSON, 3 lifetime of the result in ms, 4 ceiling on the life of an unfinished job in ms,
--         5 ms until the deadline, 6 model, 7 dialect, 8 owner, 9 class, 10 pairs, 11 number of shards,
--         12 fingerprint of the request (with KEYS[5]), 13 ms until an unheard doorbell is rung again,
--         14 JSON of the documents that no shard holds, empty when there are none, 15 channel,
--         then each shard's documents JSON, pairs and tokens, then one Celery message for each shard rung for at once
-- answers {accepted | existing | conflict, the job's id, when it was created in ms}: existing and conflict, without a
--         time, when KEYS[5] stands for a job already, of the same request or of another one
local HEAD = 15
local A_SHARD = 3
local keys = job_keys(KEYS[1])

-- A second submit of the same job is the first one's repetition after a lost answer: it changes nothing.
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
local messages = HEAD + A_SHARD * shards
local rung = #ARGV - messages
local deadline = now + ARGV[5]

redis.call('SET', keys.request, ARGV[2], 'PX', ARGV[4])
redis.call('HSET', keys.job, 'status', 'queued', 'model', ARGV[6], 'dialect', ARGV[7], 'owner', ARGV[8],
  'class', ARGV[9], 'pairs', ARGV[10], 'shards', shards, 'shards_left', shards, 'next_shard', rung, 'created_ms', now,
  'deadline_ms', deadline, 'result_ttl_ms', ARGV[3])
redis.call('ZADD', keys.deadlines, deadline, ARGV[1])
local size = {0, 0}
for shard = 0, shards - 1 do
  local documents, pairs, tokens = unpack(ARGV, HEAD + A_SHARD * shard + 1, HEAD + A_SHARD * (shard + 1))
  redis.call('HSET', keys.documents, shard, documents)
  local is_rung = shard < rung
  redis.call('HSET', keys.shards, shard .. ':status', is_rung and 'queued' or 'waiting', shard .. ':pairs', pairs,
    shard .. ':tokens', tokens)
  size = {size[1] + pairs, size[2] + tokens}
  redis.call('ZADD', keys.outstanding, is_rung and now + ARGV[13] or FAR_FUTURE_MS, ARGV[1] .. '/' .. shard)
  if is_rung then redis.call('LPUSH', KEYS[4], ARGV[messages + 1 + shard]) end
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
  count(keys, ARGV[9], '', size[1], size[2])
else
  -- Nothing is left to score.
  end_job(keys, ARGV[1], 'succeeded', ARGV[15])
end
return {'accepted', ARGV[1], now}
