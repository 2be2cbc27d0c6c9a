-- Accepts a job: its record, its request and its doorbells appear together or not at all.
-- writes  KEYS[1] job (hash), KEYS[2] request (string), KEYS[3] shards (hash), KEYS[4] outstanding (zset),
--         KEYS[5] queue (list)
-- args    1 job id, 2 request JSON, 3 lifetime of the result in ms, 4 ceiling on the life of an unfinished job in ms,
--         5 ms until the deadline (0: none), 6 model, 7 dialect, 8 owner, 9 class, 10 pairs,
--         11.. one Celery message for each shard
-- answers the time of acceptance in Unix ms
-- A second submit of the same job is the first one's repetition after a lost answer: it changes nothing.
local accepted = redis.call('HGET', KEYS[1], 'created_ms')
if accepted then return tonumber(accepted) end

local now = now_ms()
local shards = #ARGV - 10
local deadline = tonumber(ARGV[5])
if deadline > 0 then deadline = now + deadline end

redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
redis.call('HSET', KEYS[1], 'state', 'queued', 'model', ARGV[6], 'dialect', ARGV[7], 'owner', ARGV[8],
  'class', ARGV[9], 'pairs', ARGV[10], 'shards', shards, 'left', shards, 'created_ms', now,
  'deadline_ms', deadline, 'ttl_ms', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
for shard = 0, shards - 1 do
  redis.call('HSET', KEYS[3], shard .. ':state', 'queued')
  redis.call('ZADD', KEYS[4], now, ARGV[1] .. '/' .. shard)
  redis.call('LPUSH', KEYS[5], ARGV[11 + shard])
end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return now
