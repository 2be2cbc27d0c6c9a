-- Ends a batch for its runner: writes its final status, creates the records of its result files, and enqueues what its
-- webhooks deliver. Repeatable.
-- writes  KEYS[1] batch, KEYS[2] its segments, KEYS[3] runner, KEYS[4] open batches, KEYS[5] the owner's list of files,
--         KEYS[6] and KEYS[7] the records of the output and of the error file (hashes), KEYS[8...] the unpublished work of
--         pools
-- args    1 batch id, 2 the runner's token, 3 final status, 4 lifetime of the keys in ms, 5 errors JSON, 6 owner, then for
--         the output and for the error file: its id (empty when there is none), its name, its bytes, output | errors
-- returns the final status, or lost
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return 'lost' end
local function is_ended(name)
  return name == 'completed' or name == 'failed' or name == 'expired' or name == 'cancelled'
end
if is_ended(status) then return status end
if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 'lost' end

redis.call('HDEL', KEYS[1], '')
local now, lifetime = now_ms(), tonumber(ARGV[4])
for at, field in ipairs({'output_file', 'error_file'}) do
  local file_id, filename, bytes, source = unpack(ARGV, 3 + 4 * at, 6 + 4 * at)
  if file_id ~= '' then
    local key = KEYS[5 + at]
    redis.call('HSET', key, 'owner', ARGV[6], 'filename', filename, 'purpose', 'batch_output', 'bytes', bytes,
      'created_ms', now, 'expires_ms', now + lifetime, 'source', source, 'source_name', ARGV[1])
    redis.call('PEXPIRE', key, lifetime)
    add_to_list(KEYS[5], key, file_id, now, lifetime)
    redis.call('HSET', KEYS[1], field, file_id)
  end
end
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'ended_ms', now)
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'errors', ARGV[5]) end
-- The files are read through the batch's keys, which live a little longer.
for _, key in ipairs({KEYS[1], KEYS[2]}) do redis.call('PEXPIRE', key, lifetime + 60000) end
redis.call('ZREM', KEYS[4], ARGV[1])
for at = 8, #KEYS do redis.call('HDEL', KEYS[at], ARGV[1]) end
redis.call('DEL', KEYS[3])
local webhooks = redis.call('HGET', KEYS[1], 'webhooks')
if webhooks then
  local prefix = string.sub(KEYS[1], 1, -#('batch:' .. ARGV[1]) - 1)
  open_outbox(prefix).report(ARGV[6], ARGV[1], 'batch.ended', ARGV[3], webhooks, now)
end
return ARGV[3]
