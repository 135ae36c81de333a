-- caller: who asks, what holds for it, and what it uses; the part that admit.lua and peek.lua have in common. Nothing here writes
--
-- The script that includes it has taken these of its arguments: kid, mac, pepper, scope, address, identity, identity_policy.
-- A lease past its end is as good as gone here: admit.lua removes it.

local PREFIX = 'sg:{g}:'
local DAY_US = 86400 * 1000000
local YEAR_US = 365 * DAY_US

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now_ms = math.floor(now / 1000)

-- Every field there is. What stands in Redis and is none of these may be a rule that this version does not know: refused.
local NUMBER, TEXT = 1, 2
local OF_TOKEN = {
  mac = TEXT, pep = TEXT, pmac = TEXT, pmac_until = NUMBER, status = TEXT, actor = TEXT, nbf = NUMBER, exp = NUMBER, pol = TEXT,
}
local OF_BOTH = {
  name = TEXT, created = NUMBER, created_by = TEXT, ver = NUMBER,
  scopes = TEXT, cmds = TEXT, env_allow = TEXT, ip_allow = TEXT, shadow = TEXT, egress = TEXT,
  rate_n = NUMBER, rate_per_ms = NUMBER, burst = NUMBER, arate_n = NUMBER, arate_per_ms = NUMBER, aburst = NUMBER,
  conc = NUMBER, aconc = NUMBER, bud_ms = NUMBER, bud_out = NUMBER, max_ms = NUMBER, max_out = NUMBER, max_in = NUMBER,
  sessions = NUMBER, max_procs = NUMBER, max_file = NUMBER, max_mem = NUMBER,
}
local SHADOWS = ' rate actor-rate concurrency actor-concurrency budget output-budget network command environment input '

local function read(key)
  local fields, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

local record, policy = {}, nil
local secret_ends -- when the caller's secret is the one before a rotation, ms

-- A rule: the token's own, else its policy's.
local function rule(name)
  return record[name] or (policy and policy[name])
end

local function number(name)
  return tonumber(rule(name) or 0) or 0
end

-- tostring() would write 1.7950000001235e+15
local function int(value)
  return string.format('%.0f', value)
end

local function listed(list, word)
  return string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true) ~= nil
end

local function well_formed(fields, of_token)
  for name, value in pairs(fields) do
    local form = OF_BOTH[name] or (of_token and OF_TOKEN[name])
    if not form or (form == NUMBER and not string.find(value, '^%d+$')) or (form == NUMBER and #value > 15) then return false end
  end
  return true
end

-- A network: <32 hexadecimal digits>/<bits>, IPv4 inside of ::ffff:0:0/96.
local function network(word)
  local digits, bits = string.match(word, '^(%x+)/(%d%d?%d?)$')
  bits = tonumber(bits)
  if digits and #digits == 32 and bits <= 128 then return digits, bits end
end

local function counts_exactly(n, per_ms, burst)
  return n >= 1 and per_ms >= 1 and burst >= 1 and math.max(1, per_ms * 1000 / n) * burst <= YEAR_US
end

local function sound()
  if not well_formed(record, true) or (policy and (not policy.ver or not well_formed(policy, false))) then return false end
  for _, name in ipairs({'conc', 'max_ms'}) do
    if number(name) < 1 then return false end
  end
  if not counts_exactly(number('rate_n'), number('rate_per_ms'), number('burst')) then return false end
  if number('arate_n') > 0 and not counts_exactly(number('arate_n'), number('arate_per_ms'), number('aburst')) then return false end
  for word in string.gmatch(rule('ip_allow') or '', '%S+') do
    if not network(word) then return false end
  end
  for word in string.gmatch(rule('shadow') or '', '%S+') do
    if not listed(SHADOWS, word) then return false end
  end
  if not string.find(rule('egress') or '', '^[%l%d.*%- ]*$') then return false end
  return (record.actor or '') ~= ''
end

-- What a token has without flags (record_fill), where the policy says nothing.
local function filled(actor, name)
  record = {actor = actor, pol = name, status = 'active'}
  policy = read(PREFIX .. 'p:' .. name)
  local usual = {scopes = 'exec:run', conc = '3', max_ms = '300000'}
  if not policy.rate_n then usual.rate_n, usual.rate_per_ms = '60', '60000' end
  usual.burst = int(math.min(10, tonumber(policy.rate_n or 60) or 0))
  if policy.arate_n then usual.aburst = policy.burst or usual.burst end
  if (tonumber(policy.bud_ms or 0) or 0) > 0 then usual.max_ms = int(math.min(300000, tonumber(policy.bud_ms))) end
  local bytes = tonumber(policy.bud_out or 0) or 0
  if bytes > 0 and bytes < 2097152 then usual.max_out = int(math.floor(bytes / 2)) end
  for field, value in pairs(usual) do record[field] = policy[field] or value end
end

local function refusal()
  if identity ~= '' then
    filled(identity, identity_policy)
    return not sound() and 'broken-record' or nil
  end
  -- Only so much is read for a stranger, whether the kid is known or not.
  local present, made_with, past, past_until = unpack(redis.call('HMGET', KEYS[1], 'mac', 'pep', 'pmac', 'pmac_until'))
  if present ~= mac and not (past == mac and (tonumber(past_until or 0) or 0) > now_ms) then
    if not present then return 'unknown' end
    return made_with ~= pepper and 'other-pepper' or 'bad-mac'
  end
  if present ~= mac then secret_ends = tonumber(past_until) end
  record = read(KEYS[1])
  if (record.pol or '') ~= '' then policy = read(PREFIX .. 'p:' .. record.pol) end
  if record.status ~= 'active' then return record.status == 'suspended' and 'suspended' or 'revoked' end
  if not sound() then return 'broken-record' end
  if number('nbf') > now_ms then return 'not-yet-valid' end
  if record.exp and number('exp') <= now_ms then return 'expired' end
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
local today_sums, failure = sums(spent)
if failure then return failure end

-- <lease>:<granted ms>:<day>:… , see admit.lua
local function reservation(member)
  local want, day = string.match(member, '^[^:]*:(%d+):(%d+)')
  if not want then return nil, redis.error_reply('WRONGTYPE no lease in ' .. leases) end
  local out = string.match(member, ':out=(%d+)$') or '0'
  return {member = member, want = tonumber(want), day = day, out = tonumber(out), spent = PREFIX .. 'b:' .. kid .. ':' .. day}
end

local ended = {}
for i, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', int(now_ms))) do
  ended[i], failure = reservation(member)
  if failure then return failure end
end

local function held_leases()
  return redis.call('ZRANGEBYSCORE', leases, '(' .. int(now_ms), '+inf')
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

-- What is left, and the wait until it is full (or, when nothing is left, until the next one).
local function state(b)
  if not b then return 0, 0 end
  local left = math.floor((b.tau - (b.tat - now)) / b.interval)
  return left, left > 0 and b.tat - now or b.tat + b.interval - b.tau - now
end

local rate = bucket(PREFIX .. 't:' .. kid, false, number('rate_n'), number('rate_per_ms'), number('burst'))
local actor_rate = bucket(PREFIX .. 'at:' .. record.actor, true, number('arate_n'), number('arate_per_ms'), number('aburst'))
local running = redis.call('ZCARD', leases) - #ended
local actor_running = redis.call('ZCOUNT', actor_leases, '(' .. int(now_ms), '+inf')
local used, held, out_used, out_held = unpack(today_sums)
local violated, shadowed, wait = {}, {}, 0
local reaped = 0 -- by this call

-- What nobody settled is charged in full.
for _, l in ipairs(ended) do
  if l.spent == spent and redis.call('EXISTS', spent) == 1 then
    used, held, out_used, out_held = used + l.want, held - l.want, out_used + l.out, out_held - l.out
  end
end

-- Does this rule refuse, or is it only looked at so far?
local function refuses(name)
  if not listed(rule('shadow') or '', name) then return true end
  shadowed[#shadowed + 1] = name
  return false
end

-- 0 = without end
local function valid_ms()
  local last = math.min(record.exp and number('exp') or math.huge, secret_ends or math.huge)
  return last < math.huge and last - now_ms or 0
end

-- `what`: which of the command's words is not allowed, when it is one of several; what a command ended with; whose key it was.
local function report(code, granted_ms, day, granted_out, what)
  local left, reset = state(rate)
  local actor_left, actor_reset = state(actor_rate)
  return {
    code, record.actor, record.pol or '', tonumber((policy or record).ver or 0), granted_ms, day, table.concat(violated, ','), wait, reaped,
    granted_out, code == 'granted' and listed(rule('shadow') or '', 'input') and 0 or number('max_in'),
    number('rate_n'), number('rate_per_ms'), number('burst'), left, reset,
    number('arate_n'), number('arate_per_ms'), number('aburst'), actor_left, actor_reset,
    number('conc'), running, number('aconc'), actor_running,
    number('bud_ms'), used, held, day_left, number('bud_out'), out_used, out_held,
    table.concat(shadowed, ','), what or '', rule('egress') or '', number('sessions'),
    valid_ms(), number('max_procs'), number('max_file'), number('max_mem'),
  }
end

local function is_held(id)
  for _, member in ipairs(held_leases()) do
    if string.sub(member, 1, #id + 1) == id .. ':' then return true end
  end
  return false
end

-- The token's sessions (session.lua): name -> Sprite, empty until it has one:lease of its command:last used:created:1 = no command has
-- been started in it yet. A command runs in it as long as that lease is there.
local sessions, ENDS, SPRITES = PREFIX .. 's:' .. kid, PREFIX .. 'ss', PREFIX .. 'sn'

local function session_of(text)
  local sprite, holder, last, created, fresh = string.match(text or '', '^([^:]*):([^:]*):(%d+):(%d+):([01])$')
  if not sprite then return nil end
  local s = {sprite = sprite, lease = holder, used = tonumber(last), created = tonumber(created), fresh = fresh, busy = is_held(holder)}
  s.ends = tonumber(sprite ~= '' and redis.call('ZSCORE', ENDS, sprite) or 0) or 0
  return (s.busy or s.ends > now_ms) and s or nil
end

local function in_networks(list)
  for word in string.gmatch(list, '%S+') do
    local digits, bits = network(word)
    local whole, rest = math.floor(bits / 4), 2 ^ (4 - bits % 4)
    if #address == 32 and string.sub(digits, 1, whole) == string.sub(address, 1, whole) and (bits % 4 == 0 or
        math.floor(tonumber(string.sub(digits, whole + 1, whole + 1), 16) / rest) ==
        math.floor(tonumber(string.sub(address, whole + 1, whole + 1), 16) / rest)) then
      return true
    end
  end
  return false
end

-- Why it may not even ask; nil = it may.
local function forbidden()
  if not listed(rule('scopes') or '', scope) then return 'scope' end
  local networks = rule('ip_allow') or ''
  if string.find(networks, '%S') and not in_networks(networks) and refuses('network') then return 'network' end
end

-- name:busy:age ms:idle ms:ends in ms, of each; ends 0 = it is being made. And the names of those that were never begun: they have no
-- Sprite, and their command has no lease any more.
local function list_sessions()
  local told, never_begun, flat = {}, {}, redis.call('HGETALL', sessions)
  for i = 1, #flat, 2 do
    local s = session_of(flat[i + 1])
    if s then
      told[#told + 1] = table.concat({flat[i], s.busy and 1 or 0, int(math.max(0, now_ms - s.created)), int(math.max(0, now_ms - s.used)),
                                      int(math.max(0, s.ends - now_ms))}, ':')
    elseif string.sub(flat[i + 1], 1, 1) == ':' then
      never_begun[#never_begun + 1] = flat[i]
    end
  end
  return told, never_begun
end

-- The lease of a running command bears the end of its id; what a finished one ended with begins with the token it belongs to.
local function lease_of(id)
  local its_lease = string.sub((string.gsub(id, '-', '')), 9)
  for _, member in ipairs(held_leases()) do
    if string.sub(member, 1, #its_lease + 1) == its_lease .. ':' then return its_lease end
  end
end

local function result_of(id)
  local result = redis.call('GET', PREFIX .. 'x:' .. id)
  if result and string.sub(result, 1, #kid + 1) == kid .. ' ' then return string.sub(result, #kid + 2) end
end

-- For report(): one that runs, or has ended.
local function known_of(id)
  if lease_of(id) then return 'running', 0, '', 0 end
  local result = result_of(id)
  if result and string.sub(result, 1, 2) ~= '0 ' then return 'finished', 0, '', 0, result end
  return 'absent', 0, '', 0
end
