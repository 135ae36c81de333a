-- admit: may this token run a command now? All or nothing, in one round trip
--
-- KEYS[1]  the token's record, sg:{g}:k:<kid>
-- ARGV     1 kid  2 mac  3 pepper id  4 scope  5 program  6 asked ms  7 lease id  8 wait for a sandbox ms
--          9 length of standard input in bytes  10 the client's address as 32 hexadecimal digits, empty when it is not known
--          11 names of the command's variables, separated by blanks
--          12 output bytes of each stream when the token has no limit  13 the most it may have
--          14 id of a command that is to end, 'session' when the one of 18 is: nothing is run; else empty
--          15 digest of the request's idempotency key, empty = none  16 digest of its body  17 id of the command that it would start
--          18 name of the session that the command is to run in, empty = none  19 a session ends so long after its last command, ms
--          20 … and so long after it began, ms
--          21 actor of a caller that the gateway vouches for, and that has no token; empty = by its token  22 the policy it follows
-- Returns  {reason} when the token is not accepted, else the array at the end of report() in shared/caller.lua
--
-- The other keys are made of the kid and the record's actor and policy; the constant tag {g} keeps them in one slot.
-- Nothing is written unless everything passes, except that leases past their end are removed, and names of sessions that never began.
-- Times are whole microseconds of Redis' own clock: below 2^53, so exact in a double.

local kid, mac, pepper, scope, program = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local asked_ms, lease, wait_ms, input = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local address, variables, usual_out, most_out = ARGV[10], ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13])
local ends = ARGV[14]
local key, fingerprint, command = ARGV[15], ARGV[16], ARGV[17]
local session, idle_ms, age_ms = ARGV[18], tonumber(ARGV[19]), tonumber(ARGV[20])
local identity, identity_policy = ARGV[21] or '', ARGV[22] or ''

-- include shared/sums.lua
-- include shared/caller.lua

local KILL_MS = 7200000      -- no lease lasts so long
local KEY_MS = DAY_US / 1000 -- an idempotency key is remembered
local CLOSED_MS = 3000       -- a command is killed before its session's Sprite goes
local SESSIONS_MS = 30 * DAY_US / 1000 -- longer than any session lasts
local LEASE_GRACE_MS = 15000 -- time to kill what runs over and to settle
local UNRENEWED_MS = 60000   -- so much of a run is covered without renewal (renew.lua), three times the time between two
local RETRY_US = 1000000     -- when only the end of a running command can help

-- A lease that nobody settled is charged in full, to the day it was reserved on.
local function reap()
  for _, l in ipairs(ended) do
    redis.call('ZREM', leases, l.member)
    if redis.call('EXISTS', l.spent) == 1 then
      redis.call('HINCRBY', l.spent, 'held', int(0 - l.want))
      redis.call('HINCRBY', l.spent, 'used', int(l.want))
      if l.out > 0 then
        redis.call('HINCRBY', l.spent, 'out_held', int(0 - l.out))
        redis.call('HINCRBY', l.spent, 'out', int(l.out))
      end
    end
  end
  -- Asked first: after any command that may write, even one that changes nothing, Redis no longer refuses when memory is full.
  if redis.call('ZCOUNT', actor_leases, '-inf', int(now_ms)) > 0 then
    redis.call('ZREMRANGEBYSCORE', actor_leases, '-inf', int(now_ms))
  end
  return #ended
end

-- What a bucket in shadow let through beyond its limit is not counted: it would not have run.
local function take(b)
  if b.wait > 0 then return end
  b.tat = b.tat + b.interval
  redis.call('SET', b.key, int(b.tat) .. ':' .. int(b.tau), 'PX', int(math.ceil((b.tat - now) / 1000) + 1000))
end

local function violate(name, us)
  if not refuses(name) then return end
  violated[#violated + 1] = name
  wait = math.max(wait, us)
end

for _, l in ipairs(ended) do
  local _, unusable = sums(l.spent)
  if unusable then return unusable end -- it stays until it can be charged
end
reaped = reap()
local want = math.min(asked_ms, number('max_ms'))
local out_each = number('max_out') > 0 and math.min(number('max_out'), most_out) or usual_out
local out = 2 * out_each -- both streams

-- A call that is repeated after a time-out gets its first answer and takes nothing more.
for _, member in ipairs(held_leases()) do
  if string.sub(member, 1, #lease + 1) == lease .. ':' then
    local granted, day = string.match(member, '^[^:]*:(%d+):(%d+)')
    local s = session ~= '' and session_of(redis.call('HGET', sessions, session))
    return report('granted', tonumber(granted), day, tonumber(string.match(member, ':out=(%d+)$') or out) / 2,
                  s and s.sprite .. ' ' .. (s.sprite == '' and '1' or '0'))
  end
end

reason = forbidden()
if reason then return report(reason, 0, '', 0) end

-- Its name is free at once, its Sprite is destroyed by whichever gateway looks first (session.lua).
local function close_session(s)
  local scope = string.match(redis.call('HGET', SPRITES, s.sprite) or '', '^%S*')
  redis.call('HDEL', sessions, session)
  if s.busy then redis.call('SET', PREFIX .. 'kill:' .. s.lease, s.lease, 'PX', KILL_MS) end
  if s.sprite == '' then return end
  redis.call('HSET', SPRITES, s.sprite, scope)
  redis.call('ZADD', ENDS, int(s.busy and now_ms + CLOSED_MS or now_ms), s.sprite)
end

if ends == 'session' then
  local s = session_of(redis.call('HGET', sessions, session))
  if s then close_session(s) end
  return report(s and 'session-closed' or 'absent', 0, '', 0)
end

if ends ~= '' then
  local its_lease = lease_of(ends)
  if not its_lease then return report(known_of(ends)) end
  -- The gateway that runs it looks for this. First the command is asked to end, the next time it is killed.
  local mark = PREFIX .. 'kill:' .. its_lease
  local first = redis.call('SET', mark, 'stop:' .. its_lease, 'NX', 'PX', KILL_MS)
  if not first then redis.call('SET', mark, its_lease, 'PX', KILL_MS) end
  return report(first and 'running' or 'ending', 0, '', 0)
end

-- A name of the list that ends in * stands for all that begin so.
local function variable_allowed(list, name)
  if listed(list, name) then return true end
  for word in string.gmatch(list, '(%S*)%*') do
    if string.sub(name, 1, #word) == word then return true end
  end
  return false
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
  if not kept then
    local others, never_begun = list_sessions()
    for _, name in ipairs(never_begun) do redis.call('HDEL', sessions, name) end -- nobody else forgets them
    if #others >= number('sessions') then return report('session-limit', 0, '', 0) end
  end
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
