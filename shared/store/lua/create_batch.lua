-- Creates a batch. What an owner's unfinished batches have reserved of its budget is the sum over them: no counter can
-- become wrong.
-- reads   the unfinished batches, when the owner has a budget
-- writes  KEYS[1] batch, KEYS[2] the owner's list of batches, KEYS[3] open batches, KEYS[4] idempotency (string) when a key
--         was sent
-- args    1 batch id, 2 owner, 3 ms until it expires, 4 lifetime of the keys in ms, 5 fingerprint of the request (with
--         KEYS[4]), 6 estimated tokens, 7 the owner's budget in tokens, empty when there is no limit, then the fields of
--         the batch's hash and their values
-- returns {accepted | existing | conflict, the batch's id} or {budget, tokens that are reserved already}
local prefix = string.sub(KEYS[1], 1, -#ARGV[1] - 1)

local function reserved_tokens()
  local reserved = 0
  for _, batch_id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    local batch = redis.pcall('HMGET', prefix .. batch_id, 'owner', 'reserved_tokens')
    if batch[1] == ARGV[2] then reserved = reserved + (tonumber(batch[2]) or 0) end
  end
  return reserved
end

local created = redis.call('HGET', KEYS[1], 'created_ms')
-- A repeated call after a lost reply.
if created then return {'accepted', ARGV[1]} end
if KEYS[4] then
  local known = redis.call('GET', KEYS[4])
  if known then
    local batch_id, fingerprint = string.match(known, '^(%S+) (%S+)$')
    -- A batch that was deleted, or whose lifetime has passed, frees its key.
    if redis.call('EXISTS', prefix .. batch_id) == 1 then
      return {fingerprint == ARGV[5] and 'existing' or 'conflict', batch_id}
    end
  end
end
local reserved = ARGV[7] ~= '' and reserved_tokens() or 0
-- A single batch always fits.
if reserved > 0 and reserved + ARGV[6] > tonumber(ARGV[7]) then return {'budget', reserved} end

local now = now_ms()
redis.call('HSET', KEYS[1], 'created_ms', now, 'expires_ms', now + ARGV[3], unpack(ARGV, 8))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[3], now, ARGV[1])
add_to_list(KEYS[2], KEYS[1], ARGV[1], now, ARGV[4])
if KEYS[4] then redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. ARGV[5], 'PX', ARGV[4]) end
return {'accepted', ARGV[1]}
