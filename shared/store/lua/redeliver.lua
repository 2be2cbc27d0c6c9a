-- Makes a delivery due now, as if its event had just happened. A pending one keeps its number of tries.
-- writes  KEYS[1] delivery, its lane, the pending ones of its owner
-- args    1 prefix of all keys, 2 delivery
-- returns 1, or 0 when the delivery does not exist
redis.call('HDEL', KEYS[1], '')
local fields = redis.call('HMGET', KEYS[1], 'status', 'owner', 'lane')
if not fields[1] then return 0 end
if fields[1] == 'pending' then
  open_outbox(ARGV[1]).schedule(ARGV[2], fields[3], now_ms())
else
  redis.call('HDEL', KEYS[1], 'ended_ms')
  open_outbox(ARGV[1]).enqueue(ARGV[2], fields[2], fields[3], now_ms())
end
return 1
