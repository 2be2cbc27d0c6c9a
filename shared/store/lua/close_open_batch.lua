-- Closes an open batch: no requests can be added to it afterwards. A canceled one loses its requests.
-- writes  KEYS[1] open batch, KEYS[2] its requests, KEYS[3] the owner's open batches
-- args    1 batch id, 2 owner, 3 model, 4 finalized | canceled
-- returns {finalized, {the requests}}, {canceled}, {empty} for a batch without requests, which cannot be finalized, or
--         {missing}, also for the batch of another owner or model. The first call decides, later ones change nothing
local batch = redis.call('HMGET', KEYS[1], 'owner', 'model', 'status')
if batch[1] ~= ARGV[2] or batch[2] ~= ARGV[3] then return {'missing'} end
local status = batch[3]
if status == 'open' then
  if ARGV[4] == 'finalized' and redis.call('LLEN', KEYS[2]) == 0 then return {'empty'} end
  status = ARGV[4]
  if status == 'canceled' then
    redis.call('DEL', KEYS[2])
    redis.call('ZREM', KEYS[3], ARGV[1])
  end
  redis.call('HSET', KEYS[1], 'status', status)
end
if status == 'canceled' then return {status} end
return {status, redis.call('LRANGE', KEYS[2], 0, -1)}
