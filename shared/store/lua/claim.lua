-- Claims one shard by its name for one worker, whatever the order, or returns why not.
-- reads   the job's request and documents
-- writes  KEYS[1] job, its shards and lease; KEYS[2] outstanding, load, order; after a passed deadline, and when a part
--         of the job is missing, everything that ends a job
-- args    1 job id, 2 shard, 3 lease token, 4 lease in ms, 5 channel, 6 1: the worker holds no other shard
-- returns what claim_shard in _claim.lua returns
return claim_shard(job_keys(KEYS[1]), ARGV[1], ARGV[2], {token = ARGV[3], lease_ms = ARGV[4], channel = ARGV[5],
  is_idle = ARGV[6] == '1', share = 0})
