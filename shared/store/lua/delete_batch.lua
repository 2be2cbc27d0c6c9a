-- Deletes a batch. Its runner notices, and cancels the jobs of the lines that it has submitted.
-- writes  KEYS[1] batch, KEYS[2] segments, KEYS[3] runner, KEYS[4] the owner's list of batches, KEYS[5] open batches,
--         KEYS[6...] the unpublished work of pools
-- args    1 batch id
-- returns 1, or 0 when the batch does not exist
if not redis.call('HGET', KEYS[1], 'status') then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
for at = 6, #KEYS do redis.call('HDEL', KEYS[at], ARGV[1]) end
return 1
