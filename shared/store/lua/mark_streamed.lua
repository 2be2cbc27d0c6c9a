-- Marks a job's output as streamed.
-- writes  KEYS[1] job, of one request or of many
-- returns 1 the first time, 0 when the output was streamed before or the job does not exist
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
-- See allow_when_full.
redis.call('HDEL', KEYS[1], '')
return redis.call('HSETNX', KEYS[1], 'streamed', 1)
