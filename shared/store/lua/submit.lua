-- Accepts a job: its record, its request and its wake-up messages are written together or not at all. Refuses it when too
-- much work is pending in its pool.
-- writes  KEYS[1] job and its request, documents, shards; KEYS[2] outstanding, KEYS[3] deadlines, load, jobs, backlog, order,
--         the owner's list of jobs, KEYS[4] queue (list), KEYS[5] idempotency (string) when a key was sent; without shards everything that ends a job
-- args    1 job id, 2 request JSON, 3 lifetime of the result in ms, 4 maximum lifetime of an unfinished job in ms, 5 ms
--         until the deadline, 6 model, 7 dialect, 8 owner, 9 class, 10 pairs, 11 number of shards, 12 fingerprint of
--         the request (with KEYS[5]), 13 ms until an unclaimed message is sent again, 14 JSON of the known scores,
--         empty when there are none, 15 channel, 16 priority, 17 the owner's weight, 18 the most tokens that may
--         be scored before it, 19 the most pending tokens of the pool, 20 the most pending jobs of the pool (each empty
--         when there is no limit), 21 prefix of the owner's rates, 22 the owner's requests a second, 23 pairs a minute,
--         24 pending tokens and 25 unfinished jobs in this pool (each empty when there is no limit), 26 the
--         batch of which this job is one line, empty for other jobs: it is not in the owner's list, and does not
--         count for the owner's limits, 27 the process that is notified when the job ends, 28 JSON of what its webhooks
--         deliver (_webhooks.lua), empty when there are none, 29 ms from the job's start to the time at which it expires,
--         30 ms from now to the time at which it is deleted (each empty when there is no limit), 31 the
--         W3C traceparent of the submission, empty when it is not traced; then each shard's documents JSON, pairs and
--         tokens, then one Celery message for each shard enqueued at once
-- returns {accepted | existing | conflict, the job's id, time of acceptance in ms}: existing and conflict, without a
--         time, when KEYS[5] refers to a job of the same or of another request; or {refused, ahead | tokens | jobs, number}:
--         the limit that is exceeded, and by how many; or {limited, requests | pairs | tokens | jobs, ms}: the owner's
--         limit that is exceeded, and when to try again, 0 if unknown
local FIXED_ARGS = 31
local ARGS_PER_SHARD = 3
local keys = job_keys(KEYS[1])

-- A second submit of the same job repeats the first one after a lost reply, or comes from another batch runner.
local created = redis.call('HGET', keys.job, 'created_ms')
if created then
  allow_when_full(keys)
  add_listener(keys, ARGV[27])
  return {'accepted', ARGV[1], created}
end
if KEYS[5] then
  local known = redis.call('GET', KEYS[5])
  if known then
    local job_id, fingerprint = string.match(known, '^(%S+) (%S+)$')
    return {fingerprint == ARGV[12] and 'existing' or 'conflict', job_id}
  end
end

local shards = tonumber(ARGV[11])
local new_tokens = 0
for shard = 1, shards do new_tokens = new_tokens + ARGV[FIXED_ARGS + ARGS_PER_SHARD * shard] end

-- The generic cell rate algorithm: at most `limit` units in each `period` ms, any part of them at once. Returns when the
-- units that were used are used up, with `cost` more, and the ms until they may be used, 0 for now. A cost above the
-- limit needs the whole period's units and is charged in full.
local function used_up_at(key, cost, limit, period)
  local now = now_ms()
  local stored = redis.pcall('GET', key)
  local used_up = math.max(now, type(stored) == 'string' and tonumber(stored) or now)
  local allowed = period - math.min(cost, limit) * period / limit
  return used_up + cost * period / limit, math.max(0, used_up - now - allowed)
end

-- The limit that this job exceeds, and by how many tokens or jobs. A job alone exceeds no limit.
local function exceeded_limit()
  local load = redis.call('HMGET', keys.load, 'interactive:tokens', 'batch:tokens')
  local pending = (load[1] or 0) + (load[2] or 0)
  local excess = pending + new_tokens - (tonumber(ARGV[19]) or math.huge)
  if pending > 0 and excess > 0 then return 'tokens', excess end
  local jobs = redis.call('ZCARD', jobs_key(keys, 'interactive')) + redis.call('ZCARD', jobs_key(keys, 'batch'))
  excess = jobs + 1 - (tonumber(ARGV[20]) or math.huge)
  if jobs > 0 and excess > 0 then return 'jobs', excess end
  if ARGV[18] == '' then return end
  excess = tokens_ahead(keys, ARGV[9], ARGV[8], new_tokens, tonumber(ARGV[17])) - ARGV[18]
  if excess > 0 then return 'ahead', excess end
end

-- The owner's limit that this job exceeds, and the ms until it does not; otherwise charges its rates.
local function exceeded_owner_limit()
  if shards > 0 and ARGV[24] ~= '' then
    local fields = {}
    for _, class in ipairs({'interactive', 'batch'}) do
      fields[class] = redis.call('HGET', backlog_key(keys, class), ARGV[8]) or 0
    end
    local pending = fields.interactive + fields.batch
    if pending > 0 and pending + new_tokens > tonumber(ARGV[24]) then return 'tokens', 0 end
  end
  if shards > 0 and ARGV[25] ~= '' then
    local jobs = redis.call('HGET', keys.pool .. 'owner_jobs', ARGV[8]) or 0
    if tonumber(jobs) >= tonumber(ARGV[25]) then return 'jobs', 0 end
  end
  local rates = {{name = 'requests', cost = 1, limit = tonumber(ARGV[22]), period = 1000},
    {name = 'pairs', cost = tonumber(ARGV[10]), limit = tonumber(ARGV[23]), period = 60000}}
  local charges = {}
  for _, rate in ipairs(rates) do
    if rate.limit then
      local key = ARGV[21] .. rate.name
      local used_up, ms = used_up_at(key, rate.cost, rate.limit, rate.period)
      if ms > 0 then return rate.name, ms end
      table.insert(charges, {key, used_up})
    end
  end
  local now = now_ms()
  for _, charge in ipairs(charges) do
    redis.call('SET', charge[1], string.format('%.17g', charge[2]), 'PX', math.max(1, math.ceil(charge[2] - now)))
  end
end

-- A job without shards needs no worker.
if shards > 0 then
  local limit, number = exceeded_limit()
  if limit then return {'refused', limit, math.ceil(number)} end
end
local limited, ms = exceeded_owner_limit()
if limited then return {'limited', limited, math.ceil(ms)} end

local now = now_ms()
local messages = FIXED_ARGS + ARGS_PER_SHARD * shards
local enqueued = #ARGV - messages
local deadline = now + ARGV[5]

redis.call('SET', keys.request, ARGV[2], 'PX', ARGV[4])
redis.call('HSET', keys.job, 'status', 'queued', 'model', ARGV[6], 'dialect', ARGV[7], 'owner', ARGV[8],
  'class', ARGV[9], 'pairs', ARGV[10], 'shards', shards, 'shards_left', shards, 'next_shard', enqueued, 'created_ms', now,
  'deadline_ms', deadline, 'result_ttl_ms', ARGV[3], 'priority', ARGV[16], 'listeners', ARGV[27])
if ARGV[28] ~= '' then redis.call('HSET', keys.job, 'webhooks', ARGV[28]) end
if ARGV[29] ~= '' then redis.call('HSET', keys.job, 'execution_ms', ARGV[29]) end
if ARGV[30] ~= '' then redis.call('HSET', keys.job, 'kept_until_ms', now + ARGV[30]) end
if ARGV[31] ~= '' then redis.call('HSET', keys.job, 'traceparent', ARGV[31]) end
if ARGV[17] ~= '1' then
  redis.call('HSET', keys.job, 'weight', ARGV[17])
  redis.call('HSET', keys.pool .. 'weights', ARGV[8], ARGV[17])
end
redis.call('ZADD', keys.deadlines, deadline, ARGV[1])
local size, ordered = {0, 0}, {}
for shard = 0, shards - 1 do
  local documents, pairs, tokens = unpack(ARGV, FIXED_ARGS + ARGS_PER_SHARD * shard + 1, FIXED_ARGS + ARGS_PER_SHARD * (shard + 1))
  redis.call('HSET', keys.documents, shard, documents)
  local is_enqueued = shard < enqueued
  redis.call('HSET', keys.shards, shard .. ':status', is_enqueued and 'queued' or 'waiting', shard .. ':pairs', pairs,
    shard .. ':tokens', tokens)
  size = {size[1] + pairs, size[2] + tokens}
  redis.call('ZADD', keys.outstanding, is_enqueued and now + ARGV[13] or FAR_FUTURE_MS, ARGV[1] .. '/' .. shard)
  if is_enqueued then
    redis.call('LPUSH', KEYS[4], ARGV[messages + 1 + shard])
    table.insert(ordered, ARGV[1] .. '/' .. shard)
  end
end
if ARGV[14] ~= '' then redis.call('HSET', keys.documents, 'known_scores', ARGV[14]) end
for _, key in ipairs({keys.job, keys.documents, keys.shards}) do redis.call('PEXPIRE', key, ARGV[4]) end
if KEYS[5] then
  redis.call('SET', KEYS[5], ARGV[1] .. ' ' .. ARGV[12], 'PX', ARGV[4])
  redis.call('HSET', keys.job, 'idempotency', KEYS[5])
end
redis.call('HSET', keys.job, 'pairs_known', ARGV[10] - size[1])
if ARGV[26] == '' then
  add_to_list(list_key(keys, ARGV[1], ARGV[8]), KEYS[1], ARGV[1], now, ARGV[4] + ARGV[3])
else
  redis.call('HSET', keys.job, 'batch', ARGV[26])
end
if shards > 0 then
  redis.call('ZADD', jobs_key(keys, ARGV[9]), now, ARGV[1])
  add_load(keys, ARGV[9], '', size[1], size[2])
  if ARGV[26] == '' then
    add_backlog(keys, ARGV[9], ARGV[8], size[2])
    add_owner_jobs(keys, ARGV[8], 1)
  end
  add_to_order(keys, {class = ARGV[9], owner = ARGV[8], priority = ARGV[16], created_ms = now}, ordered)
else
  -- Every pair's score is known.
  end_job(keys, ARGV[1], 'succeeded', ARGV[15])
end
return {'accepted', ARGV[1], now}
