-- Accepts a shard's scores once: the first finish with the live token counts, every other one is ignored.
-- writes  KEYS[1] job, its shards, results and lease; KEYS[2] outstanding, load, backlog, order; with the last shard
--         everything that ends a job
-- args    1 job id, 2 shard, 3 lease token, 4 scores JSON, 5 channel, 6 maximum lifetime of the results in ms, 7 ms
--         until an unclaimed message is sent again, 8 maximum bytes of a result that is published with the notification
-- returns {verdict, the job's next shard to enqueue or -1}; verdict is accepted | stale (the token is not the live one)
--         | ended (the job has a final status or does not exist)
local keys = job_keys(KEYS[1])
local job = redis.call('HMGET', keys.job, 'status', 'next_shard', 'shards', 'class', 'owner', 'priority',
  'created_ms', 'batch')
if not job[1] or is_final(job[1]) then return {'ended', -1} end

local shard = ARGV[2]
local current = redis.call('HMGET', keys.shards, shard .. ':status', shard .. ':token', shard .. ':pairs',
  shard .. ':tokens', shard .. ':finishes_accepted')
if current[1] ~= 'leased' or current[2] ~= ARGV[3] then return {'stale', -1} end

allow_when_full(keys)
redis.call('HSET', keys.shards, shard .. ':status', 'done', shard .. ':finishes_accepted', (current[5] or 0) + 1)
redis.call('HSET', keys.results, shard, ARGV[4])
redis.call('HINCRBY', keys.job, 'pairs_scored', current[3] or 0)
redis.call('DEL', lease_key(keys, shard))
-- Subtracted while the shard is still outstanding: without outstanding shards the whole load is deleted.
if redis.call('ZCARD', keys.outstanding) > 1 then
  subtract_load(keys, job[4], '', current[3], current[4])
  subtract_load(keys, job[4], 'running_', current[3], current[4])
  if current[4] and not job[8] then add_backlog(keys, job[4], job[5], -current[4]) end
end
redis.call('ZREM', keys.outstanding, ARGV[1] .. '/' .. shard)
if redis.call('HINCRBY', keys.job, 'shards_left', -1) <= 0 then
  if redis.call('HLEN', keys.results) < tonumber(job[3]) then
    fail_damaged_job(keys, ARGV[1], ARGV[5])
    return {'ended', -1}
  end
  local is_inline = tonumber(job[3]) == 1 and #ARGV[4] <= tonumber(ARGV[8])
  end_job(keys, ARGV[1], 'succeeded', ARGV[5], is_inline and ARGV[4] or nil)
  return {'accepted', -1}
end
redis.call('PEXPIRE', keys.results, ARGV[6])

-- Each finished shard enqueues the next one: a large job never has more than its window in the queue.
local next_shard = tonumber(job[2])
while next_shard < tonumber(job[3]) and redis.call('HGET', keys.shards, next_shard .. ':status') ~= 'waiting' do
  next_shard = next_shard + 1
end
if next_shard >= tonumber(job[3]) then return {'accepted', -1} end
redis.call('HSET', keys.job, 'next_shard', next_shard + 1)
redis.call('HSET', keys.shards, next_shard .. ':status', 'queued')
redis.call('ZADD', keys.outstanding, now_ms() + ARGV[7], ARGV[1] .. '/' .. next_shard)
add_to_order(keys, {class = job[4], owner = job[5], priority = job[6], created_ms = job[7]},
  {ARGV[1] .. '/' .. next_shard})
return {'accepted', next_shard}
