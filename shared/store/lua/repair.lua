-- Repairs a pool's keys after foreign writes: deletes keys of the wrong type, and restores shards that only their job
-- still knows to the outstanding ones.
-- reads   the unfinished jobs, oldest first, and their shards
-- writes  KEYS[2] outstanding; deletes any of KEYS[2] outstanding, KEYS[3] deadlines, KEYS[4..5] queues, KEYS[6] dead
--         letters, load, jobs, turns, weights, backlog, owner_jobs, job_counts, unpublished, workers, measurements, the
--         keys in the args
-- args    1 prefix of the keys of jobs, 2 maximum number of shards, 3 minimum age of a job in ms, then a key and its
--         type, a key and its type ...
-- returns {the deleted keys}
local pool = job_keys('')
local deleted = {}
local kinds = {[KEYS[2]] = 'zset', [KEYS[3]] = 'zset', [KEYS[4]] = 'list', [KEYS[5]] = 'list',
  [KEYS[6]] = 'list', [pool.load] = 'hash', [jobs_key(pool, 'interactive')] = 'zset', [jobs_key(pool, 'batch')] = 'zset',
  [turns_key(pool, 'interactive')] = 'zset', [turns_key(pool, 'batch')] = 'zset',
  [backlog_key(pool, 'interactive')] = 'hash', [backlog_key(pool, 'batch')] = 'hash',
  [pool.pool .. 'weights'] = 'hash', [pool.pool .. 'owner_jobs'] = 'hash',
  [pool.pool .. 'job_counts'] = 'hash',
  [pool.pool .. 'unpublished'] = 'hash', [pool.pool .. 'workers'] = 'hash', [pool.pool .. 'measurements'] = 'hash'}
for at = 4, #ARGV, 2 do kinds[ARGV[at]] = ARGV[at + 1] end
for key, kind in pairs(kinds) do
  local is = redis.call('TYPE', key).ok
  if is ~= kind and is ~= 'none' then
    redis.call('DEL', key)
    table.insert(deleted, key)
  end
end

-- See allow_when_full.
redis.call('HDEL', pool.load, '')
local now, budget = now_ms(), tonumber(ARGV[2])

local function restore_shards(job_id)
  local keys = job_keys(ARGV[1] .. job_id)
  local job = redis.call('HMGET', keys.job, 'status', 'shards')
  if not job[1] or is_final(job[1]) then return remove_from_indexes(keys, job_id) end
  for shard = 0, math.min(tonumber(job[2]), budget) - 1 do
    budget = budget - 1
    local member = job_id .. '/' .. shard
    local status = redis.call('HGET', keys.shards, shard .. ':status')
    if status ~= 'done' and not redis.call('ZSCORE', KEYS[2], member) then
      redis.call('ZADD', KEYS[2], status == 'waiting' and FAR_FUTURE_MS or now, member)
    end
  end
end

for _, class in ipairs({'interactive', 'batch'}) do
  local old = redis.call('ZRANGEBYSCORE', jobs_key(pool, class), '-inf', now - ARGV[3], 'LIMIT', 0, budget)
  for _, job_id in ipairs(old) do
    -- A job that cannot be read is made due: the reconciler then discards it.
    if budget > 0 and not pcall(restore_shards, job_id) then redis.call('ZADD', KEYS[2], now, job_id .. '/0') end
  end
end
return deleted
