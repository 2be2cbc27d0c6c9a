-- Writes fields of a batch for its runner, renews the runner's lease, and appends a segment when the cursor moves.
-- Repeatable: a segment that moved the cursor is not appended twice.
-- writes  KEYS[1] batch, KEYS[2] segments (list), KEYS[3] runner (string), KEYS[4...] the unpublished work of pools (hashes)
-- args    1 batch id, 2 the runner's token, 3 its lease in ms, 4 lifetime of the keys in ms, 5 the cursor before (empty:
--         it does not move), 6 the cursor behind the segment, 7 segment JSON, empty when there is none, 8 the new status,
--         empty when it stays (a batch that is being cancelled keeps its status), then for each of KEYS[4...] its
--         "pairs tokens", empty for none, then the fields to write and their values
-- returns the batch's status, or lost (another runner holds the batch, or it was deleted), or moved (the cursor is at
--         neither place: this runner's state is obsolete)
local FIXED_ARGS = 8
local status = redis.call('HGET', KEYS[1], 'status')
if not status or redis.call('GET', KEYS[3]) ~= ARGV[2] then return 'lost' end
-- Allowed when Redis is full, see allow_when_full: what is written here lets jobs be deleted.
redis.call('HDEL', KEYS[1], '')
redis.call('PEXPIRE', KEYS[3], ARGV[3])

if ARGV[5] ~= '' then
  local cursor = redis.call('HGET', KEYS[1], 'cursor_byte') or '0'
  if cursor ~= ARGV[5] and cursor ~= ARGV[6] then return 'moved' end
  if cursor ~= ARGV[6] and ARGV[7] ~= '' then
    redis.call('RPUSH', KEYS[2], ARGV[7])
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
  end
  redis.call('HSET', KEYS[1], 'cursor_byte', ARGV[6])
end

local pools = #KEYS - 3
for at = 1, pools do
  if ARGV[FIXED_ARGS + at] == '' then
    redis.call('HDEL', KEYS[3 + at], ARGV[1])
  else
    redis.call('HSET', KEYS[3 + at], ARGV[1], ARGV[FIXED_ARGS + at])
  end
end
local fields = FIXED_ARGS + pools
for at = fields + 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
if ARGV[8] ~= '' and status ~= 'cancelling' and status ~= ARGV[8] then
  status = ARGV[8]
  redis.call('HSET', KEYS[1], 'status', status, status .. '_ms', now_ms())
end
return status
