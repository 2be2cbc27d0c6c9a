-- Creates, replaces or deletes a webhook endpoint, unless another process has changed it meanwhile.
-- writes  KEYS[1] endpoints (hash)
-- args    1 field, 2 the record as it was read, empty when there was none, 3 the new record, empty to delete it, 4 the start of
--         the fields of its owner, 5 the field of the owner's default secret, 6 the most endpoints of an owner
-- returns done | changed | full
redis.call('HDEL', KEYS[1], '')
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 'changed' end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 'done'
end
if ARGV[2] == '' and ARGV[1] ~= ARGV[5] then
  local count = 0
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if field ~= ARGV[5] and string.sub(field, 1, #ARGV[4]) == ARGV[4] then count = count + 1 end
  end
  if count >= tonumber(ARGV[6]) then return 'full' end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 'done'
