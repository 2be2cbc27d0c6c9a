-- Claims a shard. Prepended to every script by shared/store/scripts.py, after _common.lua.

-- Claims one shard for one worker, or returns why not. `options`: token and lease_ms of the lease, channel, is_idle (the
-- worker holds no other shard), share (of batch work, see count_for_share).
-- Returns {verdict, request JSON, documents JSON, ms since the job was accepted, the shard's tokens, 1: it must run
-- alone, the submission's traceparent or empty}; verdict is run | gone (no such job) | ended (the job has a final status) | done (the shard is finished) | held
-- (another worker has it) | alone (it must run alone: claim it again when no other shard is held). A shard that is
-- claimed has left the order.
local function claim_shard(keys, job_id, shard, options)
  local job = redis.call('HMGET', keys.job, 'status', 'deadline_ms', 'created_ms', 'started_ms', 'class', 'shards',
    'owner', 'weight', 'execution_ms', 'traceparent')
  if not job[1] then return {'gone'} end
  if is_final(job[1]) then return {'ended'} end

  allow_when_full(keys)
  local now = now_ms()
  if now >= tonumber(job[2]) then
    end_job(keys, job_id, 'expired', options.channel)
    return {'ended'}
  end

  local class, owner, member = job[5], job[7], job_id .. '/' .. shard
  local current = redis.call('HMGET', keys.shards, shard .. ':status', shard .. ':token', shard .. ':run_alone',
    shard .. ':pairs', shard .. ':tokens')
  if current[3] == '1' and current[1] == 'queued' and not options.is_idle then return {'alone'} end
  remove_from_order(keys, class, owner, member)
  if current[1] == 'done' then return {'done'} end
  local request, documents = redis.call('GET', keys.request), redis.call('HGET', keys.documents, shard)
  if not (current[1] and request and documents) then
    if tonumber(shard) >= tonumber(job[6]) then return {'gone'} end
    fail_damaged_job(keys, job_id, options.channel)
    return {'ended'}
  end
  -- Also when the lease has expired: only the reconciler takes a shard away and counts the crash. The same token is a
  -- claim that is repeated after its reply was lost.
  if current[1] == 'leased' and current[2] ~= options.token then return {'held'} end

  redis.call('HSET', keys.shards, shard .. ':status', 'leased', shard .. ':token', options.token, shard .. ':resends', 0)
  redis.call('SET', lease_key(keys, shard), options.token, 'PX', options.lease_ms)
  redis.call('ZADD', keys.outstanding, now + options.lease_ms, member)
  if current[1] ~= 'leased' then
    local tokens = tonumber(current[5]) or 0
    add_load(keys, class, 'running_', current[4], current[5])
    charge_owner(keys, class, owner, tokens, tonumber(job[8]) or 1)
    count_for_share(keys, class, tokens, options.share)
  end
  if job[1] ~= 'running' then
    redis.call('HSET', keys.job, 'status', 'running', 'started_ms', job[4] or now)
    redis.call('HINCRBY', keys.load, class .. ':running_jobs', 1)
    if job[9] and now + job[9] < tonumber(job[2]) then
      redis.call('HSET', keys.job, 'deadline_ms', now + job[9])
      redis.call('ZADD', keys.deadlines, now + job[9], job_id)
    end
  end
  return {'run', request, documents, now - job[3], current[5] or 0, current[3] == '1' and 1 or 0, job[10] or ''}
end
