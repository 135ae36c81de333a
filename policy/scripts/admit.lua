-- admit: may this token run a command now? All or nothing, in one round trip
--
-- KEYS[1]  the token's record, sg:{g}:k:<kid>
-- ARGV     1 kid  2 mac  3 pepper id  4 scope  5 program  6 asked ms  7 lease id  8 wait for a sandbox ms
--          9 length of standard input in bytes  10 the client's address as 32 hexadecimal digits, empty when it is not known
--          11 names of the command's variables, separated by blanks
--          12 output bytes of each stream when the token has no limit  13 the most it may have
--          14 id of a command: nothing is run, what is known of it is told; else empty
--          15 1 when that command is to end, else 0
--          16 digest of the request's idempotency key, empty = none  17 digest of its body  18 id of the command that it would start
--          19 name of the session that the command is to run in, empty = none  20 a session ends so long after its last command, ms
--          21 … and so long after it began, ms
--          22 actor of a caller that the gateway vouches for, and that has no token; empty = by its token  23 the policy it follows
--          As 14, 'sessions' asks for the token's sessions, and 'session' for the one of 19, which ends if 15 is 1.
-- Returns  {reason} when the token is not accepted, else the array at the end of report()
--
-- The other keys are made of the kid and the record's actor and policy; the constant tag {g} keeps them in one slot.
-- Nothing is written unless everything passes, except that leases past their end are removed, and names of sessions that never began.
-- Times are whole microseconds of Redis' own clock: below 2^53, so exact in a double.

local PREFIX = 'sg:{g}:'
local DAY_US = 86400 * 1000000
local YEAR_US = 365 * DAY_US
local KILL_MS = 7200000      -- no lease lasts so long
local KEY_MS = DAY_US / 1000 -- an idempotency key is remembered
local CLOSED_MS = 3000       -- a command is killed before its session's Sprite goes
local SESSIONS_MS = 30 * DAY_US / 1000 -- longer than any session lasts
local LEASE_GRACE_MS = 15000 -- time to kill what runs over and to settle
local UNRENEWED_MS = 60000   -- so much of a run is covered without renewal (renew.lua), three times the time between two
local RETRY_US = 1000000     -- when only the end of a running command can help

local kid, mac, pepper, scope, program = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local asked_ms, lease, wait_ms, input = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local address, variables, usual_out, most_out = ARGV[10], ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13])
local looked_for, ends = ARGV[14], ARGV[15] == '1'
local key, fingerprint, command = ARGV[16], ARGV[17], ARGV[18]
local session, idle_ms, age_ms = ARGV[19], tonumber(ARGV[20]), tonumber(ARGV[21])
local identity, identity_policy = ARGV[22] or '', ARGV[23] or ''

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

-- A lease that nobody settled is charged in full, to the day it was reserved on.
local function reap()
  local ended = redis.call('ZRANGEBYSCORE', leases, '-inf', int(now_ms))
  for _, member in ipairs(ended) do
    redis.call('ZREM', leases, member)
    local want, day = string.match(member, '^[^:]*:(%d+):(%d+)')
    local out = string.match(member, ':out=(%d+)$') or '0'
    local key = PREFIX .. 'b:' .. kid .. ':' .. day
    if redis.call('EXISTS', key) == 1 then
      redis.call('HINCRBY', key, 'held', '-' .. want)
      redis.call('HINCRBY', key, 'used', want)
      if out ~= '0' then
        redis.call('HINCRBY', key, 'out_held', '-' .. out)
        redis.call('HINCRBY', key, 'out', out)
      end
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

-- What a bucket in shadow let through beyond its limit is not counted: it would not have run.
local function take(b)
  if b.wait > 0 then return end
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
local out_each = number('max_out') > 0 and math.min(number('max_out'), most_out) or usual_out
local out = 2 * out_each -- both streams
local rate = bucket(PREFIX .. 't:' .. kid, false, number('rate_n'), number('rate_per_ms'), number('burst'))
local actor_rate = bucket(PREFIX .. 'at:' .. record.actor, true, number('arate_n'), number('arate_per_ms'), number('aburst'))
local running = redis.call('ZCARD', leases)
local actor_running = redis.call('ZCARD', actor_leases)
local use = redis.call('HMGET', spent, 'used', 'held', 'out', 'out_held')
local used, held = tonumber(use[1] or 0), tonumber(use[2] or 0)
local out_used, out_held = tonumber(use[3] or 0), tonumber(use[4] or 0)
local violated, shadowed, wait = {}, {}, 0

-- Does this rule refuse, or is it only looked at so far?
local function refuses(name)
  if not listed(rule('shadow') or '', name) then return true end
  shadowed[#shadowed + 1] = name
  return false
end

local function violate(name, us)
  if not refuses(name) then return end
  violated[#violated + 1] = name
  wait = math.max(wait, us)
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
  for _, member in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
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

-- A call that is repeated after a time-out gets its first answer and takes nothing more.
for _, member in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  if string.sub(member, 1, #lease + 1) == lease .. ':' then
    local granted, day = string.match(member, '^[^:]*:(%d+):(%d+)')
    local s = session ~= '' and session_of(redis.call('HGET', sessions, session))
    return report('granted', tonumber(granted), day, tonumber(string.match(member, ':out=(%d+)$') or out) / 2,
                  s and s.sprite .. ' ' .. (s.sprite == '' and '1' or '0'))
  end
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

-- A name of the list that ends in * stands for all that begin so.
local function variable_allowed(list, name)
  if listed(list, name) then return true end
  for word in string.gmatch(list, '(%S*)%*') do
    if string.sub(name, 1, #word) == word then return true end
  end
  return false
end

if not listed(rule('scopes') or '', scope) then return report('scope', 0, '', 0) end
local networks = rule('ip_allow') or ''
if string.find(networks, '%S') and not in_networks(networks) and refuses('network') then return report('network', 0, '', 0) end

-- name:busy:age ms:idle ms:ends in ms, of each; ends 0 = it is being made. One without a Sprite whose command has no lease any more was
-- never begun: nobody else forgets it.
local function list_sessions()
  local told, flat = {}, redis.call('HGETALL', sessions)
  for i = 1, #flat, 2 do
    local s = session_of(flat[i + 1])
    if s then
      told[#told + 1] = table.concat({flat[i], s.busy and 1 or 0, int(math.max(0, now_ms - s.created)), int(math.max(0, now_ms - s.used)),
                                      int(math.max(0, s.ends - now_ms))}, ':')
    elseif string.sub(flat[i + 1], 1, 1) == ':' then
      redis.call('HDEL', sessions, flat[i])
    end
  end
  return told
end

-- Its name is free at once, its Sprite is destroyed by whichever gateway looks first (session.lua).
local function close_session(s)
  redis.call('HDEL', sessions, session)
  if s.busy then redis.call('SET', PREFIX .. 'kill:' .. s.lease, s.lease, 'PX', KILL_MS) end
  if s.sprite == '' then return end
  redis.call('HSET', SPRITES, s.sprite, string.match(redis.call('HGET', SPRITES, s.sprite) or '', '^%S*'))
  redis.call('ZADD', ENDS, int(s.busy and now_ms + CLOSED_MS or now_ms), s.sprite)
end

if looked_for == 'sessions' then return report('sessions', 0, '', 0, table.concat(list_sessions(), ' ')) end
if looked_for == 'session' then
  local s = session_of(redis.call('HGET', sessions, session))
  if s and ends then close_session(s) end
  return report(s and 'session-closed' or 'absent', 0, '', 0)
end

-- The lease of a running command bears the end of its id; what a finished one ended with begins with the token it belongs to.
local function lease_of(id)
  local its_lease = string.sub((string.gsub(id, '-', '')), 9)
  for _, member in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    if string.sub(member, 1, #its_lease + 1) == its_lease .. ':' then return its_lease end
  end
end

local function result_of(id)
  local ended = redis.call('GET', PREFIX .. 'x:' .. id)
  if ended and string.sub(ended, 1, #kid + 1) == kid .. ' ' then return string.sub(ended, #kid + 2) end
end

if looked_for ~= '' then
  local its_lease = lease_of(looked_for)
  -- The gateway that runs it looks for this.
  if its_lease and ends then redis.call('SET', PREFIX .. 'kill:' .. its_lease, its_lease, 'PX', KILL_MS) end
  if its_lease then return report('running', 0, '', 0) end
  local ended = result_of(looked_for)
  if ended and string.sub(ended, 1, 2) ~= '0 ' then return report('finished', 0, '', 0, ended) end
  return report('absent', 0, '', 0)
end

local allowed = rule('cmds') or ''
if string.find(allowed, '%S') and (program == '' or string.find(program, '%s') or not listed(allowed, program)) and
    refuses('command') then
  return report('command', 0, '', 0)
end
allowed = rule('env_allow') or ''
if string.find(allowed, '%S') then
  for name in string.gmatch(variables, '%S+') do
    if not variable_allowed(allowed, name) then
      if refuses('environment') then return report('environment', 0, '', 0, name) end
      break
    end
  end
end
if number('max_in') > 0 and input > number('max_in') and refuses('input') then return report('input', 0, '', 0) end

-- One that certainly did not run may be started again. Where nothing is known any more it may have run.
local key_of_token = PREFIX .. 'i:' .. kid .. ':' .. key
if key ~= '' then
  local made_with, id = string.match(redis.call('GET', key_of_token) or '', '^(%x+) (.+)$')
  if made_with and made_with ~= fingerprint then return report('other-body', 0, '', 0) end
  if id and lease_of(id) then return report('in-progress', 0, '', 0, id) end
  local ended = id and result_of(id)
  if id and not ended then return report('forgotten', 0, '', 0, id) end
  if ended and not string.find(ended, '^%d+ unrun\n') then return report('replay', 0, '', 0, id .. ' ' .. ended) end
end

local kept = session ~= '' and session_of(redis.call('HGET', sessions, session)) or nil
if session ~= '' then
  if number('sessions') < 1 then return report('session-denied', 0, '', 0) end
  if kept and kept.busy then return report('session-busy', 0, '', 0) end
  if not kept and #list_sessions() >= number('sessions') then return report('session-limit', 0, '', 0) end
end

if rate.wait > 0 then violate('rate', rate.wait) end
if actor_rate and actor_rate.wait > 0 then violate('actor-rate', actor_rate.wait) end
if running >= number('conc') then violate('concurrency', RETRY_US) end
if number('aconc') > 0 and actor_running >= number('aconc') then violate('actor-concurrency', RETRY_US) end
if number('bud_ms') > 0 and used + held + want > number('bud_ms') then
  violate('budget', used + want > number('bud_ms') and day_left or RETRY_US)
end
if number('bud_out') > 0 and out_used + out_held + out > number('bud_out') then
  violate('output-budget', out_used + out > number('bud_out') and day_left or RETRY_US)
end
if #violated > 0 then return report('quota', 0, '', 0) end

-- When it was granted and what each bucket was charged: what settle needs for a refund, whatever the limits are by then.
local function charge(b)
  return b and b.wait <= 0 and int(b.interval) .. ':' .. int(b.tau) or '0:0'
end

local member = table.concat({lease, int(want), today, int(now), charge(rate), charge(actor_rate), 'out=' .. int(out)}, ':')
take(rate)
if actor_rate then take(actor_rate) end
local lease_ms = wait_ms + math.min(want, UNRENEWED_MS) + LEASE_GRACE_MS
for _, key in ipairs({leases, actor_leases}) do
  redis.call('ZADD', key, int(now_ms + lease_ms), member)
  redis.call('PEXPIRE', key, int(lease_ms + DAY_US / 1000))
end
if session ~= '' then
  local created = kept and kept.created or now_ms
  redis.call('HSET', sessions, session, table.concat({kept and kept.sprite or '', lease, int(now_ms), int(created), '0'}, ':'))
  redis.call('PEXPIRE', sessions, int(SESSIONS_MS))
  if kept then redis.call('ZADD', ENDS, int(math.min(now_ms + idle_ms, created + age_ms)), kept.sprite) end
end
if key ~= '' then redis.call('SET', key_of_token, fingerprint .. ' ' .. command, 'PX', KEY_MS) end
redis.call('HINCRBY', spent, 'held', int(want))
redis.call('HINCRBY', spent, 'out_held', int(out))
redis.call('HINCRBY', spent, 'reqs', 1)
redis.call('PEXPIRE', spent, int(math.ceil((day_left + 2 * DAY_US) / 1000)))
running, actor_running, held, out_held = running + 1, actor_running + 1, held + want, out_held + out
return report('granted', want, today, out_each, session ~= '' and (kept and kept.sprite .. ' ' .. kept.fresh or ' 1') or nil)
