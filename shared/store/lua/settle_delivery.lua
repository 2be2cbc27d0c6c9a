-- Records the outcome of a try to send a delivery. Repeatable.
-- writes  KEYS[1] delivery, its lane, the pending ones of its owner, the counts
-- args    1 prefix of all keys, 2 delivery, 3 the try's number, 4 delivered | failed | pending (it is tried again), 5 ms until
--         the next try, 6 the receiver's HTTP status, 7 error (each empty when there is none)
-- returns the delivery's status afterwards, or false when it does not exist
redis.call('HDEL', KEYS[1], '')
local fields = redis.call('HMGET', KEYS[1], 'status', 'tries', 'lane')
if fields[1] ~= 'pending' then return fields[1] end
-- Its lease has ended, and it is being sent again. What was delivered stays delivered.
if ARGV[4] ~= 'delivered' and fields[2] ~= ARGV[3] then return 'pending' end

local now, outbox = now_ms(), open_outbox(ARGV[1])
redis.call('HSET', KEYS[1], 'last_status', ARGV[6], 'last_error', ARGV[7])
if ARGV[4] == 'pending' then
  outbox.schedule(ARGV[2], fields[3], now + ARGV[5])
  outbox.count('retried')
else
  outbox.finish(ARGV[2], ARGV[4], now)
end
return ARGV[4]
