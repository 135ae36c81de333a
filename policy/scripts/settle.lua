-- settle: gives back a lease and charges what was really used, once however often it is called
--
-- KEYS[1]  the token's record, sg:{g}:k:<kid>
-- ARGV     1 kid  2 lease id  3 actor  4 granted ms  5 day (yyyymmdd)  6 used ms  7 output bytes
--          3 to 5 are empty when the answer to admit was never seen: the lease is looked for then
-- Returns  1 settled now, 0 there is no such lease (settled before, past its end, or never granted)

local PREFIX = 'sg:{g}:'
local kid, lease, actor, granted, day = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local used, out = tonumber(ARGV[6]), ARGV[7]
local leases = PREFIX .. 'c:' .. kid

if granted == '' then
  for _, found in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    if string.sub(found, 1, #lease + 1) == lease .. ':' then
      granted, day = string.match(found, '^[^:]*:(%d+):(%d+)$')
    end
  end
  if granted == '' then return 0 end
  actor = redis.call('HGET', KEYS[1], 'actor')
end

-- The removal decides: whoever removes the member charges.
local member = lease .. ':' .. granted .. ':' .. day
if actor then redis.call('ZREM', PREFIX .. 'ac:' .. actor, member) end
if redis.call('ZREM', leases, member) == 0 then return 0 end

local spent = PREFIX .. 'b:' .. kid .. ':' .. day
if redis.call('EXISTS', spent) == 1 then
  -- Never more than was reserved: the time it takes us to kill an overdue command is not the caller's.
  local charged = math.min(used, tonumber(granted))
  redis.call('HINCRBY', spent, 'held', '-' .. granted)
  redis.call('HINCRBY', spent, 'used', string.format('%.0f', charged))
  redis.call('HINCRBY', spent, 'out', out)
end
return 1
