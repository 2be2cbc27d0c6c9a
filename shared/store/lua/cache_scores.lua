-- Writes scores that later requests may read instead of asking a worker, and drops the oldest ones over the limit.
-- writes  KEYS[1] scores (zset), the key of each score written or dropped
-- args    1 start of every score's key, 2 lifetime in ms, 3 how many scores are kept, then digest, value, digest, value ...
-- answers nothing
local PAIRS = 4
local now = now_ms()
for at = PAIRS, #ARGV, 2 do
  redis.call('SET', ARGV[1] .. ARGV[at], ARGV[at + 1], 'PX', ARGV[2])
  redis.call('ZADD', KEYS[1], now, ARGV[at])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])

local ran_out = redis.call('ZCOUNT', KEYS[1], '-inf', now - ARGV[2])
local over = redis.call('ZCARD', KEYS[1]) - ARGV[3]
-- Twice what was written: so it catches up, and never keeps Redis from everything else.
local dropped = math.min(math.max(ran_out, over), #ARGV - PAIRS + 1)
if dropped > 0 then
  for _, digest in ipairs(redis.call('ZRANGE', KEYS[1], 0, dropped - 1)) do redis.call('DEL', ARGV[1] .. digest) end
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, dropped - 1)
end
