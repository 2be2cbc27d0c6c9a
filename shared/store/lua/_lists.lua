-- Sorted sets that scripts write: lists of an owner's things, and queues. Prepended to every script by
-- shared/store/scripts.py.

-- Sets a member's score. A key of the wrong type has a foreign value, which nothing else would remove.
local function set_score(key, score, member)
  if type(redis.pcall('ZADD', key, score, member)) ~= 'number' then
    redis.call('DEL', key)
    redis.call('ZADD', key, score, member)
  end
end

-- Adds `id` to a list (sorted set) of things that live in keys named like `key`, the key of `id`. Removes random ones
-- that no longer exist: at most about half of the list ever are.
local function add_to_list(list, key, id, created_ms, lifetime_ms)
  set_score(list, created_ms, id)
  if redis.call('PTTL', list) < tonumber(lifetime_ms) then redis.call('PEXPIRE', list, lifetime_ms) end
  local prefix = string.sub(key, 1, -#id - 1)
  for _, other in ipairs(redis.call('ZRANDMEMBER', list, 2)) do
    if redis.call('EXISTS', prefix .. other) == 0 then redis.call('ZREM', list, other) end
  end
end
