-- Deletes a batch. Its runner notices, and cancels the jobs of the lines that it has submitted. Its webhooks report an
-- unfinished one as cancelled.
-- writes  KEYS[1] batch, KEYS[2] segments, KEYS[3] runner, KEYS[4] the owner's list of batches, KEYS[5] open batches,
--         KEYS[6...] the unpublished work of pools
-- args    1 batch id
-- returns 1, or 0 when the batch does not exist
local batch = redis.call('HMGET', KEYS[1], 'status', 'owner', 'webhooks', 'ended_ms')
if not batch[1] then return 0 end
redis.call('HDEL', KEYS[1], '')
if batch[3] and not batch[4] then
  local prefix = string.sub(KEYS[1], 1, -#('batch:' .. ARGV[1]) - 1)
  open_outbox(prefix).report(batch[2] or '', ARGV[1], 'batch.ended', 'cancelled', batch[3], now_ms())
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
for at = 6, #KEYS do redis.call('HDEL', KEYS[at], ARGV[1]) end
return 1
