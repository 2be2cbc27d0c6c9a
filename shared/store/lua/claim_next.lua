-- Claims the shards that are next in the pool's order, up to a worker's free slots, and pops as many wake-up messages.
-- Repeatable: a call with the token of the worker's last successful call claims the same shards again.
-- reads   the requests and documents of the claimed shards
-- writes  KEYS[2] outstanding, load, order; KEYS[4] interactive queue, KEYS[5] batch queue (lists), KEYS[6] the worker's
--         last claims (string); the jobs of the claimed shards and what claim_shard writes
-- args    1 prefix of the keys of jobs, 2 token of this call, 3 lease in ms, 4 channel, 5 1: the worker holds no shard,
--         6 free slots, 7 how many of them batch work may take, 8 share of batch work (0 to below 1), 9 interactive and
--         10 batch messages that this worker has received for this call
-- returns {{claim, claim ...}, interactive, batch}: how many received messages of each class must be sent again, because
--         their shards still wait. A claim is {job id, shard, class, guaranteed, verdict, ...}: guaranteed is 1 for batch
--         work that takes precedence over interactive work, the rest is what claim_shard returns; verdict is run | alone |
--         damaged (the job's data is damaged, it was discarded)
local MAX_SKIPPED = 100
local keys = job_keys('')
local queues = {interactive = KEYS[4], batch = KEYS[5]}
local received = {interactive = tonumber(ARGV[9]), batch = tonumber(ARGV[10])}
local share = tonumber(ARGV[8])
local claims, claimed = {}, {interactive = 0, batch = 0}

-- Returns the verdict, and whether the shard must run alone.
local function claim(member, class, guaranteed)
  local job_id, shard = string.match(member, '^(.+)/(%d+)$')
  local job, answer = job_keys(ARGV[1] .. (job_id or '')), {'damaged'}
  or_discard(job, job_id or '', ARGV[4], function()
    answer = claim_shard(job, job_id, shard, {token = ARGV[2] .. ':' .. member, lease_ms = ARGV[3], channel = ARGV[4],
      is_idle = ARGV[5] == '1' and #claims == 0, share = share})
  end)
  if answer[1] == 'damaged' then redis.call('ZREM', KEYS[2], member) end
  if answer[1] == 'run' or answer[1] == 'alone' or answer[1] == 'damaged' then
    table.insert(claims, {job_id or member, shard or 0, class, guaranteed and 1 or 0, unpack(answer)})
  end
  return answer[1], answer[6] == 1
end

local function tokens_of(member)
  local job_id, shard = string.match(member, '^(.+)/(%d+)$')
  return tonumber(redis.call('HGET', job_keys(ARGV[1] .. job_id).shards, shard .. ':tokens')) or 0
end

-- The class whose next shard has precedence, with that shard's owner and member.
local function choose(batch_slots)
  local owner, member = next_in_order(keys, 'interactive')
  if batch_slots <= 0 then return 'interactive', owner, member end
  local batch_owner, batch_member = next_in_order(keys, 'batch')
  if not member then return 'batch', batch_owner, batch_member end
  local credit = tonumber(redis.call('HGET', keys.load, 'batch_credit') or 0)
  if credit > 0 and batch_member and credit >= math.min(tokens_of(batch_member), MAX_BATCH_CREDIT) then
    return 'batch', batch_owner, batch_member, true
  end
  return 'interactive', owner, member
end

local last = redis.pcall('GET', KEYS[6])
if type(last) == 'string' then
  local words = {}
  for word in string.gmatch(last, '%S+') do table.insert(words, word) end
  if words[1] == ARGV[2] then
    for at = 2, #words, 3 do claim(words[at], words[at + 1], words[at + 2] == '1') end
    return {claims, 0, 0}
  end
end

local record = {ARGV[2]}
local slots, batch_slots, skipped = tonumber(ARGV[6]), tonumber(ARGV[7]), 0
while slots > 0 and skipped < MAX_SKIPPED do
  local class, owner, member, guaranteed = choose(batch_slots)
  if not member then break end
  local verdict, runs_alone = claim(member, class, guaranteed)
  if verdict == 'alone' then break end
  if verdict == 'run' then
    for _, word in ipairs({member, class, guaranteed and '1' or '0'}) do table.insert(record, word) end
    claimed[class] = claimed[class] + 1
    slots = slots - 1
    if class == 'batch' then batch_slots = batch_slots - 1 end
    if runs_alone then break end
  else
    skipped = skipped + 1
    remove_from_order(keys, class, owner, member)
  end
end
if #record > 1 then redis.call('SET', KEYS[6], table.concat(record, ' '), 'PX', ARGV[3]) end

local again = {}
for class, queue in pairs(queues) do
  local surplus = received[class] - claimed[class]
  if not next_in_order(keys, class) then
    -- Nothing waits: all messages of this class are obsolete.
    redis.call('DEL', queue)
    again[class] = 0
  else
    again[class] = math.max(0, surplus)
    -- A queue of the wrong type is repaired by the reconciler.
    if surplus < 0 then redis.pcall('RPOP', queue, -surplus) end
  end
end
return {claims, again.interactive, again.batch}
