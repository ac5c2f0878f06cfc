-- Writes how many places of each key a node has, beside what is there already.
-- KEYS[1] is the node's hash. ARGV: its life in ms; keys and counts.
local blob, pos = ARGV[2], 1
redis.call('HSET', KEYS[1], '#', 0)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
while pos <= #blob do
  local key, n
  key, n, pos = struct.unpack('<c8d', blob, pos)
  if n == 0 then
    redis.call('HDEL', KEYS[1], key)
  else
    redis.call('HSET', KEYS[1], key, string.format('%.0f', n))
  end
end
return 1
