-- Asks a batch's runner to cancel it. A batch whose results are complete is unchanged.
-- writes  KEYS[1] batch
-- returns the batch's status afterwards, or false when it does not exist
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'validating' and status ~= 'in_progress' then return status end
redis.call('HDEL', KEYS[1], '')
redis.call('HSET', KEYS[1], 'status', 'cancelling', 'cancelling_ms', now_ms())
return 'cancelling'
