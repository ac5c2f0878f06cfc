-- Decides for many at once. Each decision takes all that it asks for, or leaves nothing.
-- KEYS[1] is the ZSET of the nodes, by the time in ms until which each is alive. Other keys begin with ARGV[1], in the slot of KEYS[1].
-- ARGV: what keys begin with; whose places are counted, or ''; how many calls came before; the life of a hash in ms; the decisions.
local prefix, member, calls, life, blob = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local hash = prefix .. 'n:' .. member

-- Microseconds since 2026, so that fractions of one are kept too.
local t = redis.call('TIME')
local seconds = t[1] - 1767225600
local now = seconds * 1000000 + t[2]

if member ~= '' then
  -- Redis may have lost what was written, or this call may be one that its node has given up long since.
  if redis.pcall('HGET', hash, '#') ~= calls then return 'gone' end
  redis.call('HINCRBY', hash, '#', 1) -- and if no writing is allowed, it fails before anything is done
end

local hashes
local function alive()
  hashes = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', t[1] * 1000 + t[2] / 1000), '+inf')
  local own = false
  for i, m in ipairs(hashes) do
    own = own or m == member
    hashes[i] = prefix .. 'n:' .. m
  end
  if not own then hashes[#hashes + 1] = hash end
end

-- How many places are taken; nil where something else is kept.
local function taken(key)
  if not hashes then alive() end
  local n = 0
  for i = 1, #hashes do
    local v = redis.pcall('HGET', hashes[i], key)
    if v then
      v = tonumber(v)
      if not v then return nil end
      n = n + v
    end
  end
  return n
end

-- Until when turns are paid for, at most 2^53 ns from now; nil where something else is kept.
local function paid(key)
  local v = redis.pcall('GET', prefix .. 't:' .. key)
  if not v then return 0 end
  v = tonumber(v)
  if not v or v ~= v then return nil end
  return math.min(math.max(v, 0), now + 9007199254740)
end

local function pay(key, till)
  local name = prefix .. 't:' .. key
  if till <= now then
    redis.call('DEL', name)
  else
    redis.call('SET', name, string.format('%.3f', till), 'PX', string.format('%.0f', math.ceil((till - now) / 1000) + 1))
  end
end

local function place(key, n)
  local v = redis.pcall('HINCRBY', hash, key, n)
  if v == 0 then redis.call('HDEL', hash, key) end
end

local BAD = 255
local counted = false
local kinds, keys, values = {}, {}, {}

-- What one ask comes to: 0 and what to write, or why not.
local function weigh(i, kind, key, a, b)
  kinds[i], keys[i], values[i] = kind, key, a
  if kind == 2 then return 0 end
  if kind == 0 then
    local n = taken(key)
    if not n then return BAD end
    if n + 1 > a then return i end
    values[i] = 1
    return 0
  end
  local till = paid(key)
  if not till then
    if kind == 1 then return BAD end
    kinds[i] = 4 -- nothing to be done
    return 0
  end
  if kind == 3 then
    if a < 0 then
      values[i] = math.max(till + a, math.min(till, now))
    else
      values[i] = math.max(till, math.min(math.max(till, now) + a, now + b))
    end
    return 0
  end
  local nearer = math.min(math.max(till, now), now + b)
  if nearer + a - now > b then
    if nearer < till then pay(key, nearer) end -- left by a slower rate, which it must not outlast
    return i
  end
  values[i] = nearer + a
  return 0
end

local out, pos, size = {}, 1, #blob
while pos <= size do
  local asks, refused = string.byte(blob, pos), 0
  pos = pos + 1
  for i = 1, asks do
    local kind, key, a, b
    kind, key, a, b, pos = struct.unpack('<Bc8dd', blob, pos)
    if refused == 0 then refused = weigh(i, kind, key, a, b) end
  end
  out[#out + 1] = string.char(refused)
  if refused == 0 then
    for i = 1, asks do
      local kind = kinds[i]
      if kind == 0 or kind == 2 then
        place(keys[i], values[i])
        counted = true
      elseif kind == 4 then
        out[#out + 1] = struct.pack('<d', 0)
      else
        pay(keys[i], values[i])
        out[#out + 1] = struct.pack('<d', math.max(values[i] - now, 0))
      end
    end
  end
end
if counted then redis.call('PEXPIRE', hash, life) end
return table.concat(out)
