-- Takes doorbells from the pool's queues: interactive work first, and no more in all than there is room for.
-- writes  KEYS[1] queue of interactive work, KEYS[2] queue of batch work (lists)
-- args    1 how many in all at most, 2 how many of them from the queue of batch work at most
-- answers {messages of interactive work, messages of batch work}, those that wait longest first
local interactive = redis.call('RPOP', KEYS[1], ARGV[1]) or {}
local room = math.min(ARGV[2], ARGV[1] - #interactive)
if room <= 0 then return {interactive, {}} end
return {interactive, redis.call('RPOP', KEYS[2], room) or {}}
