-- The order in which a pool's queued shards are claimed. Prepended to every script by shared/store/scripts.py.
--
-- Wake-up messages only wake workers; this order decides which shard is next. It has two levels for each class of work:
--   turns:CLASS         sorted set: OWNER -> the virtual time of its next turn; the lowest one is next
--   order:CLASS:OWNER   sorted set: ID/N -> its position: by priority, then by the time of acceptance
--   weights             hash: OWNER -> its weight, when it is not 1
-- and in the load hash
--   CLASS:virtual_time  the virtual time of the last turn
--   batch_credit        estimated tokens of batch work that interactive work has postponed
--
-- Owners share a class by start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each claim moves its owner's
-- next turn back by the shard's estimated tokens, divided by the owner's weight.

-- Above any time of acceptance in ms, so that priority (0 to 999) comes first; the sum is exact in a double.
local PRIORITY_STEP = 9e12
-- Most of the batch credit that is kept while no worker has a slot for batch work.
local MAX_BATCH_CREDIT = 65536

local function order_key(keys, class, owner)
  return keys.pool .. 'order:' .. class .. ':' .. owner
end

local function turns_key(keys, class)
  return keys.pool .. 'turns:' .. class
end

local function virtual_time(keys, class)
  return tonumber(redis.call('HGET', keys.load, class .. ':virtual_time') or 0)
end

-- Adds queued shards of one job; `job` has its class, owner, priority and created_ms.
local function add_to_order(keys, job, members)
  if #members == 0 then return end
  local order, turns = order_key(keys, job.class, job.owner), turns_key(keys, job.class)
  local queued = redis.pcall('ZCARD', order)
  -- Of the wrong type: a foreign value, which nothing else would remove.
  if type(queued) ~= 'number' then queued = 0 * redis.call('DEL', order) end
  -- An owner without queued shards has saved nothing up: its turn comes now, or later when it is still in debt.
  if queued == 0 or not redis.call('ZSCORE', turns, job.owner) then
    redis.call('ZADD', turns, 'GT', virtual_time(keys, job.class), job.owner)
  end
  local position = string.format('%.0f', (job.priority or 0) * PRIORITY_STEP + job.created_ms)
  for _, member in ipairs(members) do redis.call('ZADD', order, position, member) end
end

local function remove_from_order(keys, class, owner, member)
  return class and owner and redis.call('ZREM', order_key(keys, class, owner), member)
end

-- The next shard of a class: returns its owner and its member, or nothing.
local function next_in_order(keys, class)
  local turns = turns_key(keys, class)
  while true do
    local owner = redis.call('ZRANGE', turns, 0, 0)[1]
    if not owner then return end
    local order = order_key(keys, class, owner)
    local first = redis.pcall('ZRANGE', order, 0, 0)
    -- Of the wrong type: the reconciler restores what it held.
    if first.err then redis.call('DEL', order) end
    if first[1] then return owner, first[1] end
    redis.call('ZREM', turns, owner)
  end
end

-- Moves an owner's next turn back for a claimed shard.
local function charge_owner(keys, class, owner, tokens, weight)
  local turns = turns_key(keys, class)
  local before = virtual_time(keys, class)
  local now = tonumber(redis.call('ZSCORE', turns, owner)) or before
  if now > before then redis.call('HSET', keys.load, class .. ':virtual_time', string.format('%.17g', now)) end
  redis.call('ZADD', turns, string.format('%.17g', now + tokens / weight), owner)
end

-- Counts a claim for the share of batch work: interactive tokens earn it credit while it waits, its own spend it.
local function count_for_share(keys, class, tokens, share)
  if share == 0 or class == 'interactive' and not next_in_order(keys, 'batch') then return end
  local before = tonumber(redis.call('HGET', keys.load, 'batch_credit') or 0)
  local credit = math.max(0, before - tokens)
  if class == 'interactive' then
    credit = math.min(MAX_BATCH_CREDIT, before + tokens * share / (1 - share))
  end
  if credit ~= before then redis.call('HSET', keys.load, 'batch_credit', string.format('%.17g', credit)) end
end

-- The estimated tokens of its class that are scored before a new job of an owner. Each other owner gets its own share
-- meanwhile, at most what it has pending.
local function tokens_ahead(keys, class, owner, tokens, weight)
  local backlog, weights, own = {}, {}, 0
  local fields = redis.call('HGETALL', keys.pool .. 'backlog:' .. class)
  for at = 1, #fields, 2 do backlog[fields[at]] = tonumber(fields[at + 1]) end
  if #fields > 2 then fields = redis.call('HGETALL', keys.pool .. 'weights') else fields = {} end
  for at = 1, #fields, 2 do weights[fields[at]] = tonumber(fields[at + 1]) end
  own = backlog[owner] or 0
  local ahead = own
  for other, pending in pairs(backlog) do
    if other ~= owner then ahead = ahead + math.min(pending, (own + tokens) * (weights[other] or 1) / weight) end
  end
  return ahead
end

-- Without outstanding shards the order is empty.
local function clear_order(keys)
  redis.call('DEL', turns_key(keys, 'interactive'), turns_key(keys, 'batch'), keys.pool .. 'weights')
end
