-- Checks the shards that are due: a message that no worker claimed is sent again, an expired lease counts as a crash.
-- Safe to run twice: an extra message costs one claim.
-- reads   KEYS[4..5] the pool's queues (lists)
-- writes  KEYS[2] outstanding, load, order, KEYS[6] dead letters, the jobs whose shards are due
-- args    1 prefix of the keys of jobs, 2 maximum number of shards, 3 ms until the first resend, 4 maximum ms between
--         resends, 5 crashes allowed, 6 failure JSON for more, 7 channel, 8 length of the dead-letter list, 9 crashes
--         after which a shard runs alone, 10 as 3, for a shard that lost its worker
-- returns {{job id, shard, class, job id, shard, class, ...} to enqueue, {job id, ...} discarded, number of expired
--         leases, number of new dead letters}
local now = now_ms()
local queued = redis.call('LLEN', KEYS[4]) + redis.call('LLEN', KEYS[5])
local enough = queued >= redis.call('ZCARD', KEYS[2])
local wake_ups, discarded = {}, {}
local expired_leases, dead_letters = 0, 0

local function check_after(member, after_ms)
  redis.call('ZADD', KEYS[2], now + after_ms, member)
end

local function check_shard(member, job_id, shard)
  local keys = job_keys(ARGV[1] .. job_id)
  allow_when_full(keys)
  local job = redis.call('HMGET', keys.job, 'status', 'class', 'owner', 'priority', 'created_ms')
  if not job[1] then remove_from_indexes(keys, job_id) end
  if not job[1] or is_final(job[1]) then
    redis.call('ZREM', KEYS[2], member)
    return
  end
  local fields = redis.call('HMGET', keys.shards, shard .. ':status', shard .. ':resends', shard .. ':crashes',
    shard .. ':pairs', shard .. ':tokens')
  local rings = tonumber(fields[2] or 0)
  -- A shard that has lost a worker is resent sooner: the next worker may die with the message as well.
  local first_wait = (fields[1] == 'leased' or fields[3]) and ARGV[10] or ARGV[3]
  local wait = math.min(first_wait * 2 ^ math.min(rings, 20), ARGV[4])
  local function restore_order()
    add_to_order(keys, {class = job[2], owner = job[3], priority = job[4], created_ms = job[5]}, {member})
  end
  if fields[1] == 'leased' then
    local left = redis.call('PTTL', lease_key(keys, shard))
    if left > 0 then return check_after(member, left) end
    expired_leases = expired_leases + 1
    local crashes = redis.call('HINCRBY', keys.shards, shard .. ':crashes', 1)
    if crashes >= tonumber(ARGV[5]) then
      dead_letters = dead_letters + 1
      return dead_letter(keys, job_id, shard, ARGV[6], ARGV[7], KEYS[6], tonumber(ARGV[8]))
    end
    subtract_load(keys, job[2], 'running_', fields[4], fields[5])
    redis.call('HSET', keys.shards, shard .. ':status', 'queued', shard .. ':resends', 0)
    if crashes >= tonumber(ARGV[9]) then redis.call('HSET', keys.shards, shard .. ':run_alone', 1) end
    redis.call('HDEL', keys.shards, shard .. ':token')
    restore_order()
  elseif fields[1] == 'queued' then
    -- After a transient error, or a foreign program's write, it is not in the order.
    restore_order()
    if enough then return check_after(member, wait) end
    redis.call('HINCRBY', keys.shards, shard .. ':resends', 1)
  elseif fields[1] ~= 'done' and fields[1] ~= 'waiting' then
    fail_damaged_job(keys, job_id, ARGV[7])
    table.insert(discarded, job_id)
    return
  else
    redis.call('ZREM', KEYS[2], member)
    return
  end
  check_after(member, wait)
  table.insert(wake_ups, job_id)
  table.insert(wake_ups, shard)
  table.insert(wake_ups, job[2])
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local job_id, shard = string.match(member, '^(.+)/(%d+)$')
  local function work() check_shard(member, job_id, shard) end
  if not job_id then
    redis.call('ZREM', KEYS[2], member)
  elseif not or_discard(job_keys(ARGV[1] .. job_id), job_id, ARGV[7], work) then
    redis.call('ZREM', KEYS[2], member)
    table.insert(discarded, job_id)
  end
end
-- The load of deleted jobs was never subtracted.
local keys = job_keys('')
if redis.call('ZCARD', keys.outstanding) == 0 and redis.call('HLEN', keys.load) > 1 then
  clear_load(keys, redis.call('HGET', keys.load, 'ended_ms'))
end
return {wake_ups, discarded, expired_leases, dead_letters}
