-- admit: may this token run a command now? All or nothing, in one round trip
--
-- KEYS[1]  the token's record, sg:{g}:k:<kid>
-- ARGV     1 kid  2 mac  3 pepper id  4 scope  5 program  6 asked ms  7 lease id  8 wait for a sandbox ms
--          9 length of standard input in bytes
-- Returns  {reason} when the token is not accepted, else the array at the end of report()
--
-- The other keys are made of the kid and the record's actor; the constant tag {g} keeps them in one slot.
-- Nothing is written unless everything passes, except that leases past their end are removed.
-- Times are whole microseconds of Redis' own clock: below 2^53, so exact in a double.

local PREFIX = 'sg:{g}:'
local DAY_US = 86400 * 1000000
local LEASE_GRACE_MS = 15000 -- time to kill what runs over and to settle
local RETRY_US = 1000000     -- when only the end of a running command can help

local kid, mac, pepper, scope, program = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local asked_ms, lease, wait_ms, input = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now_ms = math.floor(now / 1000)

local FIELDS = {
  'mac', 'pep', 'status', 'nbf', 'exp', 'actor', 'scopes', 'cmds', 'rate_n', 'rate_per_ms', 'burst',
  'arate_n', 'arate_per_ms', 'aburst', 'conc', 'aconc', 'bud_ms', 'max_ms', 'max_out', 'max_in', 'pol', 'ver',
}
local record = {}
for i, value in ipairs(redis.call('HMGET', KEYS[1], unpack(FIELDS))) do
  record[FIELDS[i]] = value
end

local function number(name)
  return tonumber(record[name] or 0) or 0
end

-- tostring() would write 1.7950000001235e+15
local function int(value)
  return string.format('%.0f', value)
end

local function listed(list, word)
  return string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true) ~= nil
end

local function refusal()
  if not record.mac then return 'unknown' end
  if record.mac ~= mac then return record.pep ~= pepper and 'other-pepper' or 'bad-mac' end
  if record.status ~= 'active' then return record.status == 'suspended' and 'suspended' or 'revoked' end
  if number('nbf') > now_ms then return 'not-yet-valid' end
  if record.exp and number('exp') <= now_ms then return 'expired' end
  for _, name in ipairs({'rate_n', 'rate_per_ms', 'burst', 'conc', 'max_ms'}) do
    if number(name) < 1 then return 'broken-record' end
  end
  if not record.actor or record.actor == '' then return 'broken-record' end
end

local reason = refusal()
if reason then return {reason} end

-- yyyymmdd of a count of days since 1970 (Hinnant's civil_from_days)
local function date(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  return string.format('%04d%02d%02d', yoe + era * 400 + (month <= 2 and 1 or 0), month, day)
end

local today = date(math.floor(now / DAY_US))
local day_left = DAY_US - now % DAY_US
local leases = PREFIX .. 'c:' .. kid
local actor_leases = PREFIX .. 'ac:' .. record.actor
local spent = PREFIX .. 'b:' .. kid .. ':' .. today

-- A lease that nobody settled is charged in full, to the day it was reserved on.
local function reap()
  local ended = redis.call('ZRANGEBYSCORE', leases, '-inf', int(now_ms))
  for _, member in ipairs(ended) do
    redis.call('ZREM', leases, member)
    local want, day = string.match(member, '^[^:]*:(%d+):(%d+)')
    local key = PREFIX .. 'b:' .. kid .. ':' .. day
    if redis.call('EXISTS', key) == 1 then
      redis.call('HINCRBY', key, 'held', '-' .. want)
      redis.call('HINCRBY', key, 'used', want)
    end
  end
  -- Asked first: after any command that may write, even one that changes nothing, Redis no longer refuses when memory is full.
  if redis.call('ZCOUNT', actor_leases, '-inf', int(now_ms)) > 0 then
    redis.call('ZREMRANGEBYSCORE', actor_leases, '-inf', int(now_ms))
  end
  return #ended
end

-- GCRA, not applied yet. The key holds TAT:tau. No grant leaves a TAT beyond now + tau: one that is there is due to a clock that has
-- gone back since, or to a limit that has been raised since. One command is let through then, and its grant puts the TAT right; merely
-- waiting would not, since a refusal writes nothing. A key that tokens with different limits share is judged by the tau it was
-- written with, or one of them could wipe out what the others have used.
local function bucket(key, shared, n, per_ms, burst)
  if n < 1 then return nil end
  local b = {key = key, interval = math.max(1, math.floor(per_ms * 1000 / n))}
  b.tau = b.interval * burst
  local tat, tau = string.match(redis.call('GET', key) or '', '^(%d+):(%d+)$')
  b.tat = math.max(tonumber(tat or now), now)
  if b.tat > now + math.max(b.tau, shared and tonumber(tau) or 0) then b.tat = now + b.tau - b.interval end
  b.wait = b.tat + b.interval - b.tau - now
  return b
end

local function take(b)
  b.tat = b.tat + b.interval
  redis.call('SET', b.key, int(b.tat) .. ':' .. int(b.tau), 'PX', int(math.ceil((b.tat - now) / 1000) + 1000))
end

-- What is left, and the wait until it is full (or, when nothing is left, until the next one).
local function state(b)
  if not b then return 0, 0 end
  local left = math.floor((b.tau - (b.tat - now)) / b.interval)
  return left, left > 0 and b.tat - now or b.tat + b.interval - b.tau - now
end

local reaped = reap()
local want = math.min(asked_ms, number('max_ms'))
local rate = bucket(PREFIX .. 't:' .. kid, false, number('rate_n'), number('rate_per_ms'), number('burst'))
local actor_rate = bucket(PREFIX .. 'at:' .. record.actor, true, number('arate_n'), number('arate_per_ms'), number('aburst'))
local running = redis.call('ZCARD', leases)
local actor_running = redis.call('ZCARD', actor_leases)
local use = redis.call('HMGET', spent, 'used', 'held')
local used, held = tonumber(use[1] or 0), tonumber(use[2] or 0)
local violated, wait = {}, 0

local function violate(name, us)
  violated[#violated + 1] = name
  wait = math.max(wait, us)
end

local function report(code, granted_ms, day)
  local left, reset = state(rate)
  local actor_left, actor_reset = state(actor_rate)
  return {
    code, record.actor, record.pol or '', number('ver'), granted_ms, day, table.concat(violated, ','), wait, reaped,
    number('max_out'), number('max_in'),
    number('rate_n'), number('rate_per_ms'), number('burst'), left, reset,
    number('arate_n'), number('arate_per_ms'), number('aburst'), actor_left, actor_reset,
    number('conc'), running, number('aconc'), actor_running,
    number('bud_ms'), used, held, day_left,
  }
end

-- A call that is repeated after a time-out gets its first answer and takes nothing more.
for _, member in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  if string.sub(member, 1, #lease + 1) == lease .. ':' then
    local granted, day = string.match(member, '^[^:]*:(%d+):(%d+)')
    return report('granted', tonumber(granted), day)
  end
end

if not listed(record.scopes or '', scope) then return report('scope', 0, '') end
local allowed = record.cmds or ''
if string.find(allowed, '%S') and (program == '' or string.find(program, '%s') or not listed(allowed, program)) then
  return report('command', 0, '')
end
if number('max_in') > 0 and input > number('max_in') then return report('input', 0, '') end

if rate.wait > 0 then violate('rate', rate.wait) end
if actor_rate and actor_rate.wait > 0 then violate('actor-rate', actor_rate.wait) end
if running >= number('conc') then violate('concurrency', RETRY_US) end
if number('aconc') > 0 and actor_running >= number('aconc') then violate('actor-concurrency', RETRY_US) end
if number('bud_ms') > 0 and used + held + want > number('bud_ms') then
  violate('budget', used + want > number('bud_ms') and day_left or RETRY_US)
end
if #violated > 0 then return report('quota', 0, '') end

take(rate)
if actor_rate then take(actor_rate) end
-- When it was granted and what each bucket was charged: what settle needs for a refund, whatever the limits are by then.
local function charge(b)
  return b and int(b.interval) .. ':' .. int(b.tau) or '0:0'
end

local member = table.concat({lease, int(want), today, int(now), charge(rate), charge(actor_rate)}, ':')
local lease_ms = wait_ms + want + LEASE_GRACE_MS
for _, key in ipairs({leases, actor_leases}) do
  redis.call('ZADD', key, int(now_ms + lease_ms), member)
  redis.call('PEXPIRE', key, int(lease_ms + DAY_US / 1000))
end
redis.call('HINCRBY', spent, 'held', int(want))
redis.call('HINCRBY', spent, 'reqs', 1)
redis.call('PEXPIRE', spent, int(math.ceil((day_left + 2 * DAY_US) / 1000)))
running, actor_running, held = running + 1, actor_running + 1, held + want
return report('granted', want, today)
