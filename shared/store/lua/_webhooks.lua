-- The outbox of webhooks: events that must be delivered. Prepended to every script by shared/store/scripts.py, after
-- _lists.lua.
--
-- A delivery is one event for one receiver. It waits in the lane of its receiver's host, so that a host that does not
-- answer delays no other:
--   webhook_lanes                 sorted set: LANE -> when its first delivery is due, ms
--   webhook_lane:LANE             sorted set: DELIVERY -> when it is due, ms
--   webhook_delivery:DELIVERY     hash: status is pending | delivered | failed; see shared/ledger/delivery_record.py
--   webhook_deliveries:OWNER/ID   sorted set: DELIVERY -> when its event happened, ms; all deliveries to an endpoint
--   webhook_pending:OWNER         sorted set: DELIVERY -> when it was enqueued, ms; the pending ones of an owner
--   webhook_counts                hash: delivered, retried, failed -> how many so far

-- The functions of the outbox; `prefix` is that of all keys. They are made when a script needs them: Redis runs the whole
-- source at each call, and most jobs have no webhooks.
local function open_outbox(prefix)
  local DELIVERY_MS = 7 * 86400000
  -- Afterwards a delivered one is of no use. It does not outlive an ordinary job's result by much.
  local DELIVERED_MS = 3600000
  -- The oldest ones over it fail.
  local MAX_PENDING = 100000

  local function key_of(delivery)
    return prefix .. 'webhook_delivery:' .. delivery
  end

  local function count(outcome)
    -- Of the wrong type: a foreign value, which must not keep a delivery from ending.
    redis.pcall('HINCRBY', prefix .. 'webhook_counts', outcome, 1)
  end

  local function update_lane(lane)
    local first = redis.call('ZRANGE', prefix .. 'webhook_lane:' .. lane, 0, 0, 'WITHSCORES')
    if first[1] then
      set_score(prefix .. 'webhook_lanes', first[2], lane)
    else
      redis.call('ZREM', prefix .. 'webhook_lanes', lane)
    end
  end

  -- Lets a delivery be sent at `due_ms`.
  local function schedule(delivery, lane, due_ms)
    redis.call('HSET', key_of(delivery), 'due_ms', due_ms)
    set_score(prefix .. 'webhook_lane:' .. lane, due_ms, delivery)
    update_lane(lane)
  end

  -- Ends a delivery: `status` is delivered or failed. A failed one stays as a dead letter until its lifetime ends.
  local function finish(delivery, status, now)
    local key = key_of(delivery)
    local fields = redis.call('HMGET', key, 'lane', 'owner')
    redis.call('HSET', key, 'status', status, 'ended_ms', now)
    redis.call('HDEL', key, 'due_ms')
    redis.call('PEXPIRE', key, status == 'delivered' and DELIVERED_MS or DELIVERY_MS)
    redis.call('ZREM', prefix .. 'webhook_lane:' .. fields[1], delivery)
    redis.call('ZREM', prefix .. 'webhook_pending:' .. fields[2], delivery)
    update_lane(fields[1])
    count(status)
  end

  -- Fails the oldest pending deliveries of an owner that has too many.
  local function fail_oldest(pending, now)
    local excess = redis.call('ZCARD', pending) - MAX_PENDING
    if excess <= 0 then return end
    for _, oldest in ipairs(redis.call('ZRANGE', pending, 0, excess - 1)) do
      if redis.call('EXISTS', key_of(oldest)) == 1 then
        redis.call('HSET', key_of(oldest), 'last_error', 'too many deliveries of this key were pending')
        finish(oldest, 'failed', now)
      else
        redis.call('ZREM', pending, oldest)
      end
    end
  end

  -- Makes a delivery pending and due now.
  local function enqueue(delivery, owner, lane, now)
    local pending = prefix .. 'webhook_pending:' .. owner
    redis.call('HSET', key_of(delivery), 'status', 'pending', 'tries', 0, 'enqueued_ms', now)
    redis.call('PEXPIRE', key_of(delivery), DELIVERY_MS)
    set_score(pending, now, delivery)
    schedule(delivery, lane, now)
    fail_oldest(pending, now)
  end

  local function wants(target, event)
    for _, wanted in ipairs(target.events or {}) do
      if wanted == event then return true end
    end
    return false
  end

  -- Enqueues an event for the receivers that want it: `targets` is the JSON of a list, as api/webhooks/subscriptions.py
  -- writes it. `subject` is the job or batch that ended with `final_status`.
  local function report(owner, subject, event, final_status, targets, now)
    -- Damaged by a foreign program: no reason not to end the job.
    local readable, list = pcall(cjson.decode, targets)
    for number, target in ipairs(readable and type(list) == 'table' and list or {}) do
      if wants(target, event) then
        local delivery = 'msg_' .. subject .. '_' .. now .. '_' .. number
        local key = key_of(delivery)
        redis.call('HSET', key, 'owner', owner, 'endpoint', target.endpoint, 'url', target.url, 'lane', target.lane,
          'form', target.form, 'event', event, 'subject', subject, 'final_status', final_status, 'created_ms', now)
        if target.secret then redis.call('HSET', key, 'secret', target.secret) end
        enqueue(delivery, owner, target.lane, now)
        add_to_list(prefix .. 'webhook_deliveries:' .. owner .. '/' .. target.endpoint, key, delivery, now, DELIVERY_MS)
      end
    end
  end

  return {count = count, update_lane = update_lane, schedule = schedule, finish = finish, enqueue = enqueue,
    report = report}
end
