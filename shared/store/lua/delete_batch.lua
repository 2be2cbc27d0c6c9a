-- Deletes a batch. Its runner notices, and cancels the jobs of the lines that it has submitted.
-- writes  KEYS[1] batch, KEYS[2] segments, KEYS[3] runner, KEYS[4] the owner's list of batches, KEYS[5] open batches,
--         KEYS[6] budgets, KEYS[7...] the unpublished work of pools
-- args    1 batch id, 2 owner
-- returns 1, or 0 when the batch does not exist
local batch = redis.call('HMGET', KEYS[1], 'status', 'reserved_tokens')
if not batch[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[1])
if redis.call('ZREM', KEYS[5], ARGV[1]) == 1 then
  if redis.call('HINCRBY', KEYS[6], ARGV[2], -(batch[2] or 0)) <= 0 then redis.call('HDEL', KEYS[6], ARGV[2]) end
end
for at = 7, #KEYS do redis.call('HDEL', KEYS[at], ARGV[1]) end
return 1
