-- Creates an open batch with its first requests, or adds requests to one.
-- writes  KEYS[1] open batch (hash), KEYS[2] its requests (list), KEYS[3] the owner's open batches (sorted set: the id by
--         the time at which it is deleted)
-- args    1 batch id, 2 owner, 3 model, 4 lifetime in ms, 5 maximum number of requests, 6 of bytes, 7 of the owner's open
--         batches, 8 create | add, then the requests
-- returns {ok, number of requests}, {closed, status}, {requests | bytes | batches, maximum}, or {missing}, also for the
--         batch of another owner or model
local batch = redis.call('HMGET', KEYS[1], 'owner', 'model', 'status', 'bytes')
local now = now_ms()
if ARGV[8] == 'create' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[7]) then return {'batches', tonumber(ARGV[7])} end
else
  if batch[1] ~= ARGV[2] or batch[2] ~= ARGV[3] then return {'missing'} end
  if batch[3] ~= 'open' then return {'closed', batch[3]} end
end

local number, bytes = redis.call('LLEN', KEYS[2]) + #ARGV - 8, tonumber(batch[4]) or 0
for at = 9, #ARGV do bytes = bytes + #ARGV[at] end
if number > tonumber(ARGV[5]) then return {'requests', tonumber(ARGV[5])} end
if bytes > tonumber(ARGV[6]) then return {'bytes', tonumber(ARGV[6])} end

redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'model', ARGV[3], 'status', 'open', 'bytes', bytes)
for at = 9, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[at]) end
for _, key in ipairs({KEYS[1], KEYS[2]}) do redis.call('PEXPIRE', key, ARGV[4]) end
redis.call('ZADD', KEYS[3], now + ARGV[4], ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return {'ok', number}
