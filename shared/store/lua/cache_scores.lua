-- Writes scores to the cache, and evicts expired ones and the oldest ones over the limit.
-- writes  KEYS[1] cached scores (zset), the key of each score written or evicted
-- args    1 prefix of the keys of scores, 2 lifetime in ms, 3 maximum number of scores, then digest, value, digest,
--         value ...
-- returns nothing
local PAIRS = 4
local now = now_ms()
for at = PAIRS, #ARGV, 2 do
  redis.call('SET', ARGV[1] .. ARGV[at], ARGV[at + 1], 'PX', ARGV[2])
  redis.call('ZADD', KEYS[1], now, ARGV[at])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])

local expired = redis.call('ZCOUNT', KEYS[1], '-inf', now - ARGV[2])
local over = redis.call('ZCARD', KEYS[1]) - ARGV[3]
-- At most twice the number written: eviction catches up, and the script stays short.
local evicted = math.min(math.max(expired, over), #ARGV - PAIRS + 1)
if evicted > 0 then
  for _, digest in ipairs(redis.call('ZRANGE', KEYS[1], 0, evicted - 1)) do redis.call('DEL', ARGV[1] .. digest) end
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, evicted - 1)
end
