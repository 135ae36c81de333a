-- renew: a command still runs, so its lease does not end yet
--
-- KEYS[1]  the token's record, sg:{g}:k:<kid>
-- ARGV     1 kid  2 lease id  3 actor
-- Returns  1 renewed, 0 there is no such lease any more: it has ended and was charged, so its command has no right to go on
--
-- Never brings an end nearer. The keys themselves last for a day longer, which is longer than any lease of theirs.

local PREFIX = 'sg:{g}:'
local RENEWED_MS = 75000 -- as admit gives without the wait
local DAY_MS = 86400000

local kid, lease, actor = ARGV[1], ARGV[2], ARGV[3]
local leases = PREFIX .. 'c:' .. kid

local clock = redis.call('TIME')
local till = math.floor((tonumber(clock[1]) * 1000000 + tonumber(clock[2])) / 1000) + RENEWED_MS

local member
for _, found in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  if string.sub(found, 1, #lease + 1) == lease .. ':' then member = found end
end
if not member then return 0 end
for _, key in ipairs({leases, PREFIX .. 'ac:' .. actor}) do
  local ends = tonumber(redis.call('ZSCORE', key, member) or 0)
  if ends < till then
    redis.call('ZADD', key, string.format('%.0f', till), member)
    redis.call('PEXPIRE', key, RENEWED_MS + DAY_MS)
  end
end
return 1
