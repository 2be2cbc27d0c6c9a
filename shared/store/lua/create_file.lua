-- Creates the record of an uploaded file.
-- writes  KEYS[1] file, KEYS[2] the owner's list of files
-- args    1 file id, 2 owner, 3 lifetime in ms, 4 filename, 5 purpose, 6 bytes, 7 the object in the payload store
-- returns {time of creation in ms, time of expiry in ms}
local now, lifetime = now_ms(), tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'filename', ARGV[4], 'purpose', ARGV[5], 'bytes', ARGV[6], 'created_ms', now,
  'expires_ms', now + lifetime, 'source', 'upload', 'source_name', ARGV[7])
redis.call('PEXPIRE', KEYS[1], lifetime)
add_to_list(KEYS[2], KEYS[1], ARGV[1], now, lifetime)
return {now, now + lifetime}
