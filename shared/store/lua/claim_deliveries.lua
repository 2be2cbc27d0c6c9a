-- Claims deliveries that are due, for the process that sends them. A claim is a lease: when nothing settles the delivery
-- by its end, it is due again.
-- reads   KEYS[1] lanes
-- writes  KEYS[1] lanes, the lanes and deliveries that it claims
-- args    1 prefix of all keys, 2 maximum number of deliveries, 3 maximum of a lane, 4 lease in ms, then a lane and how many
--         of its deliveries are being sent, a lane and its number ...
-- returns {{delivery, {field, value, field, value ...}} ...}
-- See allow_when_full.
redis.call('HDEL', ARGV[1] .. 'webhook_nothing', '')
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then
  redis.call('DEL', KEYS[1])
  return {}
end

local now, left, busy, full = now_ms(), tonumber(ARGV[2]), {}, 0
for at = 5, #ARGV, 2 do
  busy[ARGV[at]] = tonumber(ARGV[at + 1])
  if busy[ARGV[at]] >= tonumber(ARGV[3]) then full = full + 1 end
end

local claims, outbox = {}, open_outbox(ARGV[1])
local function claim(lane, delivery)
  local key = ARGV[1] .. 'webhook_delivery:' .. delivery
  if redis.pcall('HGET', key, 'status') ~= 'pending' then
    redis.call('ZREM', ARGV[1] .. 'webhook_lane:' .. lane, delivery)
    return
  end
  redis.call('HINCRBY', key, 'tries', 1)
  redis.call('HSET', key, 'tried_ms', now)
  redis.call('ZADD', ARGV[1] .. 'webhook_lane:' .. lane, now + ARGV[4], delivery)
  table.insert(claims, {delivery, redis.call('HGETALL', key)})
  left = left - 1
end

-- Lanes that are full stay at the front.
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, left + full)) do
  local room = math.min(left, ARGV[3] - (busy[lane] or 0))
  if room > 0 then
    local due = redis.pcall('ZRANGEBYSCORE', ARGV[1] .. 'webhook_lane:' .. lane, '-inf', now, 'LIMIT', 0, room)
    if due.err then redis.call('DEL', ARGV[1] .. 'webhook_lane:' .. lane) end
    for _, delivery in ipairs(due) do claim(lane, delivery) end
    outbox.update_lane(lane)
  end
end
return claims
