-- Adds a process to those that are notified when a job ends. Does nothing for a job that has ended or does not exist.
-- writes  KEYS[1] job
-- args    1 job id, 2 name of the process
-- returns 1 when the process will be notified, otherwise 0
local keys = job_keys(KEYS[1])
local status = redis.call('HGET', keys.job, 'status')
if not status or is_final(status) then return 0 end

allow_when_full(keys)
add_listener(keys, ARGV[2])
return 1
