-- settle: gives back a lease and charges what was really used, once however often it is called
--
-- KEYS[1]  the token's record, sg:{g}:k:<kid>
-- ARGV     1 kid  2 lease id  3 actor, empty when the answer to admit was never seen  4 used ms  5 output bytes
--          6 refund: 1 when the command certainly did not start, else 0
--          7 the command's id  8 what it ended with, kept for 9 ms; empty = nothing is kept
--          10 1: the gateway has let it in while Redis was away, there is no lease of it (degraded.h); else 0
-- Returns  1 settled now, 0 there is no such lease (settled before, past its end, or never granted)

local PREFIX = 'sg:{g}:'
local kid, lease, actor = ARGV[1], ARGV[2], ARGV[3]
local used, out, refund = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == '1'
local command, result, keep_ms = ARGV[7], ARGV[8], tonumber(ARGV[9])
local leases = PREFIX .. 'c:' .. kid
local BOOKED_MS = 3 * 86400 * 1000 -- longer than a gateway repeats it (SETTLEMENTS_FILE), and than today lasts
local RESULTS_BYTES = 64 * 1024 * 1024 -- of all that are kept
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- include shared/sums.lua

-- yyyymmdd, as in caller.lua
local function today()
  local z = math.floor(now / 86400000000) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return string.format('%04d%02d%02d', yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - math.floor((153 * mp + 2) / 5) + 1)
end

-- All of them with their sizes and ends, the oldest first, and the sum of the sizes. Newer ones take the room of older ones.
local function forget(found)
  local id, size = string.match(found, '^(.*):(%d+)$')
  redis.call('ZREM', PREFIX .. 'xs', found)
  redis.call('PEXPIRE', PREFIX .. 'x:' .. id, 0)
  return redis.call('HINCRBY', PREFIX .. 'xb', 'bytes', '-' .. size)
end

local function keep()
  if not redis.call('SET', PREFIX .. 'x:' .. command, kid .. ' ' .. result, 'PX', keep_ms, 'NX') then return end
  local now_ms = math.floor(now / 1000)
  for _, ended in ipairs(redis.call('ZRANGEBYSCORE', PREFIX .. 'xs', '-inf', string.format('%.0f', now_ms), 'LIMIT', 0, 100)) do
    forget(ended)
  end
  redis.call('ZADD', PREFIX .. 'xs', string.format('%.0f', now_ms + keep_ms), command .. ':' .. #result)
  local bytes = redis.call('HINCRBY', PREFIX .. 'xb', 'bytes', #result)
  while bytes > RESULTS_BYTES do
    local oldest = redis.call('ZRANGE', PREFIX .. 'xs', 0, 0)[1]
    if not oldest then
      redis.call('PEXPIRE', PREFIX .. 'xb', 0)
      break
    end
    bytes = forget(oldest)
  end
  for _, key in ipairs({'xs', 'xb'}) do redis.call('PEXPIRE', PREFIX .. key, keep_ms) end
end

-- A mark takes the place of the lease: whoever leaves it charges. To the day on which it is booked, by our clock.
if ARGV[10] == '1' then
  local mark, spent = PREFIX .. 'd:' .. lease, PREFIX .. 'b:' .. kid .. ':' .. today()
  local _, failure = sums(spent)
  if failure and not refund and redis.call('EXISTS', mark) == 0 then return failure end
  local charged = redis.call('SET', mark, '1', 'PX', BOOKED_MS, 'NX')
  if charged and not refund then
    redis.call('HINCRBY', spent, 'used', string.format('%.0f', used))
    redis.call('HINCRBY', spent, 'out', string.format('%.0f', out))
    redis.call('HINCRBY', spent, 'reqs', 1)
    redis.call('PEXPIRE', spent, BOOKED_MS)
  end
  if result ~= '' then pcall(keep) end -- must not fail what is charged
  return charged and 1 or 0
end

local member
for _, found in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  if string.sub(found, 1, #lease + 1) == lease .. ':' then member = found end
end
if not member then
  if result ~= '' then keep() end -- the lease has ended by itself
  return 0
end
if actor == '' then actor = redis.call('HGET', KEYS[1], 'actor') end

local granted, day = string.match(member, '^[^:]*:(%d+):(%d+)')
local spent = PREFIX .. 'b:' .. kid .. ':' .. day
local _, failure = sums(spent)
if failure then return failure end

-- The removal decides: whoever removes the member charges.
if actor then redis.call('ZREM', PREFIX .. 'ac:' .. actor, member) end
redis.call('ZREM', leases, member)

if redis.call('EXISTS', spent) == 1 then
  -- Never more than was reserved: the time it takes us to kill an overdue command is not the caller's, nor is output that was cut.
  local charged = math.min(used, tonumber(granted))
  local out_held = tonumber(string.match(member, ':out=(%d+)$'))
  redis.call('HINCRBY', spent, 'held', '-' .. granted)
  redis.call('HINCRBY', spent, 'used', string.format('%.0f', charged))
  if out_held and out_held > 0 then redis.call('HINCRBY', spent, 'out_held', string.format('-%.0f', out_held)) end
  redis.call('HINCRBY', spent, 'out', string.format('%.0f', math.min(out, out_held or out)))
  if refund then redis.call('HINCRBY', spent, 'reqs', -1) end
end
if result ~= '' then pcall(keep) end
if not refund then return 1 end

-- Of the one interval that the grant took, what has passed since came back by itself and may have been used again: only the rest is
-- given back. So no moment sees more than the burst, and whoever has waited for nothing finds at least what was there before.
-- Left alone: a bucket that is full again, one that another limit has written since, and clocks that went back (admit heals those).
local function put_back(key, since, interval, tau)
  local rest = interval - (now - since)
  local tat, written_with = string.match(redis.call('GET', key) or '', '^(%d+):(%d+)$')
  if not tat or tonumber(written_with) ~= tau or now < since or rest <= 0 then return end
  tat = tonumber(tat)
  if tat <= now or tat > now + tau then return end
  tat = math.max(tat - rest, now)
  redis.call('SET', key, string.format('%.0f:%.0f', tat, tau), 'PX', string.format('%.0f', math.ceil((tat - now) / 1000) + 1000))
end

local charge = {}
for part in string.gmatch(member, '[^:]+') do charge[#charge + 1] = tonumber(part) or 0 end
local since = charge[4] -- nil: a lease that a version without refunds has written
if since and charge[5] > 0 then put_back(PREFIX .. 't:' .. kid, since, charge[5], charge[6]) end
if since and actor and charge[7] > 0 then put_back(PREFIX .. 'at:' .. actor, since, charge[7], charge[8]) end
return 1
