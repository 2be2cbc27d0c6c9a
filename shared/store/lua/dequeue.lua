-- Pops wake-up messages from a pool's queues, interactive ones first.
-- writes  KEYS[1] interactive queue, KEYS[2] batch queue (lists)
-- args    1 maximum number of messages, 2 how many of them may be batch messages
-- returns {interactive messages, batch messages}, oldest first
local interactive = redis.call('RPOP', KEYS[1], ARGV[1]) or {}
local batch = math.min(ARGV[2], ARGV[1] - #interactive)
if batch <= 0 then return {interactive, {}} end
return {interactive, redis.call('RPOP', KEYS[2], batch) or {}}
