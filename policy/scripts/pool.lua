-- pool: who owns which Sprite of a pool that several gateways share, and how many there are
--
-- KEYS[1]  sg:{g}:pool:<pool>:inc
-- ARGV     1 operation  2 incarnation  3 session, <instance>/<epoch>  4 turn  5... of the operation, below
-- Returns  {'flushed'} when the incarnation is another one, {'fenced'} when the session has ended, else what the operation says
--
-- The turn counts up with every call of a session, which makes one call after the other. A call that is repeated because its answer
-- was lost has the turn it had: nothing is done twice, and the answer is the same as long as what it did still stands. A call that
-- Redis carries out late, after others of its session, changes nothing: 'stale'.
-- Times are whole milliseconds of Redis' own clock. All keys are in one slot. A call looks at no more than the records there are,
-- which the pool's maximum bounds, and at what has a limit here.

local PREFIX = string.sub(KEYS[1], 1, -4)
local INC, REC, LISTED, SWEEP = KEYS[1], PREFIX .. 'rec', PREFIX .. 'listed', PREFIX .. 'sweep'
local INS, SES, SAID, TURN, LISTERS = PREFIX .. 'ins', PREFIX .. 'ses', PREFIX .. 'said', PREFIX .. 'turn', PREFIX .. 'listers'
local MEMBERS, COUNT, WARM, MADE, LIM = PREFIX .. 'm', PREFIX .. 'n', PREFIX .. 'warm', PREFIX .. 'made', PREFIX .. 'lim'
local BACK, WANT = PREFIX .. 'back', PREFIX .. 'want'
local STRANGE, MISSING, GONE = PREFIX .. 's1', PREFIX .. 's2', PREFIX .. 'gone'
local KEPT = PREFIX .. 'kept' -- Sprites of named sessions (session.lua): no records, but they count
local ASLEEP = PREFIX .. 'asleep' -- those of them that were found to run no more, and have no place until they are given one (run)
local LEFT = PREFIX .. 'left' -- leases of their commands that ended without a word about it -> since when that is known
local LIMITS, CROWD, ASKED = PREFIX .. 'limits', PREFIX .. 'crowd', PREFIX .. 'asked'
local ROOT = string.match(PREFIX, '^(.-)pool:')

local BEAT_MS = 5000
local SESSION_MS = 15000  -- a session ends so long after its last beat
local RECOVERY_MS = 20000 -- after a flush every living gateway has written its members again by then
local LATE_MS = 90000     -- and after that every creation that nobody knows of has taken effect, or never will
local STRIKE_MS = 60000   -- between two strikes, and between two lists
local RELIST_MS = 10000   -- between two lists while there has been none
local KEPT_MS = 300000    -- what is remembered of members that are gone, and the longest that creations can be closed
local DAY_MS = 86400000
local LINGER_MS = 35000   -- what was parked may run so long before the provider pauses it
local QUIET_MS = 100000   -- … and what a session used, whose channel is kept for a while
local LIMIT_MS = 120000   -- a limit is known so long after it was told last, longer than until another gateway has listed
local PLACE_MS = 500      -- who waits for a place asks again then
local CROWD_MS = 2000     -- … and has gone when it has not asked for so long
local LEAVING_MS = 10000  -- what is being destroyed is taken to be gone soon for so long

local MEMBERS_MAX = 25    -- handed over by one call
local SESSIONS_MAX = 100
local TENANTS_MAX = 32
local LOOKED_AT_MAX = 100 -- parked members, for one of the right generation
local SEEN_MAX = 5000     -- Sprites in one list
local MADE_MAX = 2000

local op, incarnation, session, turn = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- tostring() would write 1.7950000001235e+15
local function int(value)
  return string.format('%.0f', value)
end

-- What is left until an end. One that is further away than it can be is due to a clock that has gone back since.
local function left(till, longest)
  return math.max(0, math.min((tonumber(till or 0) or 0) - now, longest))
end

-- --- records ---

-- state:session:turn:since:created:owned:tenant:uses:exec id:end of the lease:when it was parked last, a time no two parkings share
local function read(name)
  local text = redis.call('HGET', MEMBERS, name)
  if not text then return nil end
  local f = {}
  for field in string.gmatch(text .. ':', '([^:]*):') do f[#f + 1] = field end
  return {state = f[1], session = f[2], turn = tonumber(f[3]), since = tonumber(f[4]), created = tonumber(f[5]), owned = f[6],
          tenant = f[7], uses = f[8], exec = f[9], till = tonumber(f[10]), parked = tonumber(f[11] or f[4])}
end

local function new_record(state)
  return {state = state, session = session, turn = turn, since = now, created = now, owned = '0', tenant = '0', uses = '0', exec = '',
          till = 0, parked = 0}
end

local function is_stock(r)
  return r.state == 'warm' and r.owned == '0'
end

local function unlist(name, r)
  redis.call('HINCRBY', COUNT, r.state, -1)
  redis.call('SREM', PREFIX .. 'of:' .. r.session, name)
  if is_stock(r) then redis.call('ZREM', WARM, name) end
end

local function write(name, r, old)
  if old then unlist(name, old) end
  -- One whose wake came to nothing is parked as it was: who it was taken from may have been somebody else's, too.
  local as_it_was = old and (old.state == 'warm' or (old.state == 'preparing' and old.parked > 0))
  if r.state == 'warm' and not as_it_was then r.parked = math.max(now, r.parked + 1) end
  redis.call('HSET', MEMBERS, name, table.concat({
    r.state, r.session, int(r.turn), int(r.since), int(r.created), r.owned, r.tenant, r.uses, r.exec, int(r.till), int(r.parked)}, ':'))
  redis.call('HINCRBY', COUNT, r.state, 1)
  redis.call('SADD', PREFIX .. 'of:' .. r.session, name)
  if is_stock(r) then redis.call('ZADD', WARM, int(r.since), name) end
  redis.call('ZREM', STRANGE, name)
end

local function forget(name, r)
  redis.call('HDEL', MEMBERS, name)
  unlist(name, r)
  redis.call('ZREM', MISSING, name)
  redis.call('ZADD', GONE, int(now), name)
end

-- What counts against the maximum. One that is just becoming a session's counts twice.
local function total()
  return redis.call('HLEN', MEMBERS) + redis.call('ZCARD', STRANGE) + redis.call('SCARD', KEPT)
end

-- --- what runs ---

-- What is of another type fails no call of the pool.
local function is_held(kid, lease)
  local held = redis.pcall('ZRANGEBYSCORE', ROOT .. 'c:' .. kid, '(' .. int(now), '+inf')
  if held.err then return true end
  for _, member in ipairs(held) do
    if string.sub(member, 1, #lease + 1) == lease .. ':' then return true end
  end
  return false
end

-- Since when this lease is not held, as far as it was looked at.
local function left_since(lease)
  local since = tonumber(redis.call('ZSCORE', LEFT, lease) or math.huge)
  if since <= now then return since end
  redis.call('ZADD', LEFT, int(now), lease)
  return now
end

-- Of a session that has ended: until it is gone.
local function session_runs(sprite)
  local kid, name = string.match(redis.call('HGET', ROOT .. 'sn', sprite) or '', '^%S+ (%S+) (%S+)$')
  local text = kid and redis.pcall('HGET', ROOT .. 's:' .. kid, name)
  local lease, used = string.match(type(text) == 'string' and text or '', '^[^:]*:([^:]*):(%d+):')
  if not lease or (lease ~= '' and is_held(kid, lease)) then return true end
  return left((lease == '' and tonumber(used) or left_since(lease)) + QUIET_MS, QUIET_MS) > 0
end

-- Sprites of sessions in use. One that was not counted once has no place from then on: what was always counted has one, however long it
-- was not used.
local function sessions_running()
  local count = 0
  for _, sprite in ipairs(redis.call('SMEMBERS', KEPT)) do
    if redis.call('HEXISTS', MEMBERS, sprite) == 0 and redis.call('SISMEMBER', ASLEEP, sprite) == 0 then
      if session_runs(sprite) then count = count + 1 else redis.call('SADD', ASLEEP, sprite) end
    end
  end
  return count
end

-- Sprites that run, or may: what a record or a list tells of, but for what was parked long enough ago, and those of sessions.
local function running()
  local members, count = redis.call('HGETALL', MEMBERS), redis.call('ZCARD', STRANGE) + sessions_running()
  for i = 2, #members, 2 do
    local state, since = string.match(members[i], '^(%l+):[^:]*:%d+:(%d+):')
    if state ~= 'warm' or left(tonumber(since) + LINGER_MS, LINGER_MS) > 0 then count = count + 1 end
  end
  return count
end

-- How many may, the least that any gateway has told lately; 0 = none has told any.
local function may_run(told)
  if told > 0 then redis.call('ZADD', LIMITS, int(now + LIMIT_MS), int(told)) end
  local least = 0
  for _, limit in ipairs(redis.call('ZRANGEBYSCORE', LIMITS, '(' .. int(now), '+inf')) do
    if least == 0 or tonumber(limit) < least then least = tonumber(limit) end
  end
  return least
end

-- Sessions that wait for a place.
local function crowd()
  return redis.call('ZRANGEBYSCORE', CROWD, '(' .. int(now), int(now + CROWD_MS))
end

-- Since when, but for those that have just been given one.
local function asked()
  local since = {}
  for _, waiting in ipairs(crowd()) do since[waiting] = tonumber(redis.call('ZSCORE', ASKED, waiting) or nil) end
  return since
end

-- How many of them have waited for longer than this one.
local function earlier()
  local since, count = asked(), 0
  for _, at in pairs(since) do
    if at < (since[session] or math.huge) then count = count + 1 end
  end
  return count
end

-- May nothing more run? Nobody gets what is to be ready while somebody waits, nor a place that is somebody else's turn: who has all places
-- would ask for each that gets free before anybody else could.
local function is_full(limit, for_stock)
  return limit > 0 and ((for_stock and #crowd() > 0) or running() + earlier() >= limit)
end

-- It has what it waited for: whatever else it waits for, others come first.
local function end_turn()
  redis.call('ZREM', ASKED, session)
end

local function crowded(for_stock)
  if for_stock then return {'crowded', BEAT_MS} end
  local till = tonumber(redis.call('ZSCORE', CROWD, session) or 0)
  if till <= now or till > now + CROWD_MS then end_turn() end
  redis.call('ZADD', ASKED, 'NX', int(now), session)
  redis.call('ZADD', CROWD, int(now + CROWD_MS), session)
  return {'crowded', PLACE_MS}
end

-- Ours from now on.
local function hand_over(name, r, state)
  local ours = {}
  for key, value in pairs(r) do ours[key] = value end
  ours.session, ours.turn, ours.state = session, turn, state
  if state ~= r.state then ours.since = now end
  write(name, ours, r)
  return ours
end

local function describe(answer, name, r)
  for _, value in ipairs({name, r.state, math.max(0, now - r.created), math.max(0, now - r.since), tonumber(r.owned), r.tenant,
                          tonumber(r.uses), math.max(0, r.till - now), r.exec, r.parked}) do
    answer[#answer + 1] = value
  end
end

-- --- sessions ---

-- Whoever had a session before the flush has one again, and has written again what it asked for. Instance -> how many sessions it had
-- known of, negative until it beats.
local function all_are_back()
  local known, most, back = redis.call('HGETALL', BACK), 0, 0
  for i = 2, #known, 2 do
    most = math.max(most, math.abs(tonumber(known[i])))
    if tonumber(known[i]) > 0 then back = back + 1 end
  end
  return back >= most
end

-- 0: not. So long nothing is created or taken: whoever owned something may not have said so yet.
local function recovering()
  local rec, listed = tonumber(redis.call('GET', REC) or 0), tonumber(redis.call('GET', LISTED) or 0)
  if left(rec, RECOVERY_MS) > 0 then return left(rec, RECOVERY_MS) end
  if listed == 0 then return BEAT_MS end
  if all_are_back() or listed >= rec + LATE_MS then return 0 end
  return math.max(BEAT_MS, left(rec + LATE_MS, LATE_MS))
end

-- Takes the turn; false when it was taken before.
local function first_time()
  if turn <= tonumber(redis.call('HGET', TURN, session) or 0) then return false end
  redis.call('HSET', TURN, session, int(turn))
  return true
end

-- What a call of this turn has handed over, for its repetition.
local function handed_over(answer)
  for _, name in ipairs(redis.call('SMEMBERS', PREFIX .. 'of:' .. session)) do
    local r = read(name)
    if r.turn == turn then describe(answer, name, r) end
  end
  return #answer > 1 and answer or {'stale'}
end

local function tell_revoked(owner, name)
  if redis.call('ZSCORE', SES, owner) then redis.call('HSET', PREFIX .. 'lost:' .. owner, name, 0) end
end

-- --- the beat ---

local function living()
  return redis.call('ZRANGEBYSCORE', SES, '(' .. int(now), '+inf', 'LIMIT', 0, SESSIONS_MAX)
end

local function ended()
  return redis.call('ZRANGEBYSCORE', SES, '-inf', int(now), 'LIMIT', 0, SESSIONS_MAX)
end

local function add_money(total)
  local before = string.match(redis.call('HGET', SAID, session) or '', ':(%d+)$')
  local day = PREFIX .. 'usd:' .. int(math.floor(now / DAY_MS))
  local spent = total - tonumber(before or total)
  if spent > 0 then
    redis.call('INCRBY', day, int(spent))
    redis.call('PEXPIRE', day, int(2 * DAY_MS))
  end
  return redis.call('GET', day) or '0'
end

--   -> count, window
local function learn(count, window_ms, closed_ms)
  if count > 0 and window_ms > 0 then redis.call('HSET', LIM, 'count', int(count), 'window', int(window_ms)) end
  closed_ms = math.max(math.min(closed_ms, KEPT_MS), left(redis.call('HGET', LIM, 'until'), KEPT_MS))
  if closed_ms > 0 then redis.call('HSET', LIM, 'until', int(now + closed_ms)) end
  local known = redis.call('HMGET', LIM, 'count', 'window')
  return tonumber(known[1] or 0), tonumber(known[2] or 0), closed_ms
end

local function made_lately(window_ms)
  redis.call('ZREMRANGEBYRANK', MADE, 0, -1 - MADE_MAX)
  redis.call('ZREMRANGEBYSCORE', MADE, '(' .. int(now), '+inf') -- of a clock that has gone back since
  return window_ms > 0 and redis.call('ZCOUNT', MADE, '(' .. int(now - window_ms), '+inf') or 0
end

-- How many that idle here are to make way for others: of the places that those wait for, what is not free and what no other gateway is
-- giving up. So whoever beats first does it, and the next one finds that it was done.
local function to_make_way()
  local limit, wanted = may_run(0), 0
  for other in pairs(asked()) do
    local waiting = string.match(redis.call('HGET', SAID, other) or '', '^%d+:%d+:(%d+):')
    if other ~= session then wanted = wanted + math.max(1, tonumber(waiting or 1)) end
  end
  if limit == 0 or wanted == 0 then return 0 end
  local members, leaving = redis.call('HGETALL', MEMBERS), 0
  for i = 2, #members, 2 do
    local owner, since = string.match(members[i], '^destroying:([^:]*):%d+:(%d+):')
    if owner and owner ~= session and left(tonumber(since) + LEAVING_MS, LEAVING_MS) > 0 then leaving = leaving + 1 end
  end
  return math.max(0, wanted - leaving - math.max(0, limit - running()))
end

-- Of the other living sessions, added up, as they have said it: hot targets and claims.
local function others(sessions)
  local targets, claims = 0, 0
  for _, other in ipairs(sessions) do
    local target, rate = string.match(other ~= session and redis.call('HGET', SAID, other) or '', '^(%d+):%d+:%d+:(%d+):')
    targets, claims = targets + tonumber(target or 0), claims + tonumber(rate or 0)
  end
  return targets, claims
end

-- What others have leased -> how many, and a flat list: how many tenants, and of each who it is and how many it has there, 0 = it has
-- only claimed there lately. Of too many those that have most.
local function others_tenants(sessions)
  local members, held, tenants, leased = redis.call('HGETALL', MEMBERS), {}, {}, 0
  local function see(tenant, more)
    if not held[tenant] then tenants[#tenants + 1] = tenant end
    held[tenant] = (held[tenant] or 0) + more
  end
  for i = 2, #members, 2 do
    local state, owner, tenant = string.match(members[i], '^(%l+):([^:]*):%d+:%d+:%d+:%d+:(%x+):')
    if state == 'leased' and owner ~= session then
      leased = leased + 1
      see(tenant, 1)
    end
  end
  for _, other in ipairs(sessions) do
    for tenant in string.gmatch(other ~= session and redis.call('HGET', WANT, other) or '', '%x+') do see(tenant, 0) end
  end
  table.sort(tenants, function(a, b) return held[a] > held[b] or (held[a] == held[b] and a < b) end)
  local flat = {math.min(#tenants, TENANTS_MAX)}
  for i = 1, flat[1] do
    flat[#flat + 1] = tenants[i]
    flat[#flat + 1] = held[tenants[i]]
  end
  return leased, flat
end

local function others_warm()
  local count = 0
  for _, name in ipairs(redis.call('ZRANGE', WARM, 0, -1)) do
    if redis.call('SISMEMBER', PREFIX .. 'of:' .. session, name) == 0 then count = count + 1 end
  end
  return count
end

-- One session lists at a time, each in its turn; another one does when that one does not.
local function may_list(sessions)
  local who, at, since = string.match(redis.call('GET', SWEEP) or '', '^(.*) (%d+) (%d+)$')
  if who == session and tonumber(at) == turn then return true end
  local every = (redis.call('EXISTS', LISTED) == 1 and recovering() == 0) and STRIKE_MS or RELIST_MS
  local late = who and now - tonumber(since) - every or every
  if late < 0 and who and tonumber(since) <= now then return false end
  if late >= 0 and late < 2 * BEAT_MS then
    local mine = tonumber(redis.call('ZSCORE', LISTERS, session) or 0)
    for _, other in ipairs(sessions) do
      if tonumber(redis.call('ZSCORE', LISTERS, other) or 0) < mine then return false end
    end
  end
  redis.call('SET', SWEEP, session .. ' ' .. int(turn) .. ' ' .. int(now))
  redis.call('ZADD', LISTERS, int(now), session)
  return true
end

-- What others have taken is told until a beat says that it knows: name -> turn of the beat that told it first, 0 = none has.
local function tell_lost(answer, acknowledged)
  local key, flat, room = PREFIX .. 'lost:' .. session, redis.call('HGETALL', PREFIX .. 'lost:' .. session), MEMBERS_MAX
  for i = 1, #flat, 2 do
    local told = tonumber(flat[i + 1])
    if told > 0 and told <= acknowledged then
      redis.call('HDEL', key, flat[i])
    elseif room > 0 then
      room = room - 1
      if told == 0 then redis.call('HSET', key, flat[i], int(turn)) end
      answer[#answer + 1] = flat[i]
    end
  end
end

-- 1 hot target  2 leased  3 claims that wait and for which nothing is on its way  4 claims in 1000 s  5 money so far, nano dollars
-- 6 creations that the provider allows in a window, 0 = not said  7 the window, ms  8 creations are closed for so long, ms
-- 9 turn of the last beat whose answer was read  10 who has claimed lately, tenants with blanks between them
-- 11 Sprites that may run at once, as far as this gateway knows; 0 = it knows of no limit
local function renew(said)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', SES, '(' .. int(now + SESSION_MS), '+inf', 'LIMIT', 0, SESSIONS_MAX)) do
    redis.call('ZADD', SES, int(now + SESSION_MS), other)
  end
  redis.call('ZADD', SES, int(now + SESSION_MS), session)
  local money = add_money(said[5])
  redis.call('HSET', SAID, session, table.concat({int(said[1]), int(said[2]), int(said[3]), int(said[4]), int(said[5])}, ':'))
  redis.call('HSET', WANT, session, said[10])
  may_run(said[11])
  redis.call('ZREMRANGEBYSCORE', LIMITS, '-inf', int(now))
  for _, limit in ipairs(redis.call('ZRANGEBYSCORE', LIMITS, '(' .. int(now + LIMIT_MS), '+inf')) do
    redis.call('ZADD', LIMITS, int(now + LIMIT_MS), limit)
  end
  redis.call('ZREMRANGEBYSCORE', LEFT, '-inf', int(now - KEPT_MS))
  sessions_running() -- which have no place is known before any limit is
  local count, window_ms, closed_ms = learn(said[6], said[7], said[8])
  redis.call('ZREMRANGEBYSCORE', GONE, '-inf', int(now - KEPT_MS))
  local sessions, abandoned = living(), 0
  for _, dead in ipairs(ended()) do abandoned = abandoned + redis.call('SCARD', PREFIX .. 'of:' .. dead) end
  local instance, epoch = string.match(session, '^(.*)/(%d+)$')
  local answer = {
    total(), redis.call('SCARD', PREFIX .. 'of:' .. session), others_warm(),
    abandoned, #sessions, made_lately(window_ms), money, closed_ms, count, window_ms, recovering() > 0 and 1 or 0,
    may_list(sessions) and 1 or 0, tonumber(redis.call('HGET', INS, instance) or 0) > tonumber(epoch) and 1 or 0}
  local targets, claims = others(sessions)
  local leased, tenants = others_tenants(sessions)
  local others_crowd = 0
  for _, other in ipairs(crowd()) do others_crowd = others_crowd + (other ~= session and 1 or 0) end
  for _, number in ipairs({targets, leased, to_make_way(), claims, DAY_MS - now % DAY_MS, others_crowd}) do
    answer[#answer + 1] = number
  end
  for _, value in ipairs(tenants) do answer[#answer + 1] = value end
  tell_lost(answer, said[9])
  return answer
end

-- --- operations ---

local operations = {}

-- 5... as in renew() -> 'ok', records and strangers, own records, others' parked ones, records of ended sessions, living sessions,
-- creations of the window, money of the day, closed ms, limit, its window ms, recovering, list, superseded, others' hot targets and
-- leases, how many are to make way here, others' claims, what is left of the day, ms, other sessions that wait for a place, the list of
-- others_tenants(), then names that are not ours any more
function operations.beat()
  local instance = string.match(session, '^(.*)/')
  local known = tonumber(redis.call('HGET', BACK, instance) or 0)
  if known < 0 then redis.call('HSET', BACK, instance, int(-known)) end
  local said = {}
  for i = 1, 9 do said[i] = tonumber(ARGV[4 + i]) end
  said[10], said[11] = ARGV[14] or '', tonumber(ARGV[15] or 0)
  local answer = {'ok'}
  for _, value in ipairs(renew(said)) do answer[#answer + 1] = value end
  return answer
end

-- 5 instance  6 the incarnation if there is none yet  7 sessions, its own too, that it knew of in its last one; 0 = it had none -> 'ok', incarnation, session, 1 = there was no incarnation, and as beat
function operations.join()
  local instance, former, known, fresh = ARGV[5], incarnation, tonumber(ARGV[7] or 0), false
  incarnation = redis.call('GET', INC)
  if not incarnation then
    incarnation, fresh = ARGV[6], true
    redis.call('SET', INC, incarnation)
    redis.call('SET', REC, int(now + RECOVERY_MS))
  end
  if known > 0 and former ~= incarnation then redis.call('HSET', BACK, instance, int(-known)) end
  local epoch = int(math.max(tonumber(redis.call('HGET', INS, instance) or 0) + 1, now))
  session = instance .. '/' .. epoch
  redis.call('HSET', INS, instance, epoch)
  local answer = {'ok', incarnation, session, fresh and 1 or 0}
  for _, value in ipairs(renew({0, 0, 0, 0, 0, 0, 0, 0, 0, '', 0})) do answer[#answer + 1] = value end
  redis.call('HDEL', SAID, session) -- the first beat says what was spent before it, which is not new
  return answer
end

-- What it leaves may be adopted at once. -> 'ok'
function operations.leave()
  redis.call('ZADD', SES, int(now), session)
  return {'ok'}
end

-- 5 name  6 most Sprites of the pool  7 for stock: so many idle ones or ones on their way are enough; 0 = somebody waits for it
-- 8 creations of a window, 0 = no limit  9 the window, ms  10 as 11 of renew()
--   -> 'ok', or why not and when to ask again, ms: 'recovering', 'full', 'stock', 'closed', 'budget', 'crowded', 'taken' (another
-- session has it)
function operations.reserve()
  local name, most, enough, count, window_ms = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
  local limit = may_run(tonumber(ARGV[10] or 0))
  local again, r = not first_time(), read(name)
  if r then return r.session == session and {'ok'} or {'taken', 0} end
  if again then return {'stale'} end
  if recovering() > 0 then return {'recovering', recovering()} end
  if total() >= most then return {'full', 0} end
  local stock = redis.call('ZCARD', WARM)
  for _, number in ipairs(redis.call('HMGET', COUNT, 'intent', 'creating', 'preparing', 'quarantine', 'hot')) do
    stock = stock + tonumber(number or 0)
  end
  if enough > 0 and stock >= enough then return {'stock', BEAT_MS} end
  local closed_ms = left(redis.call('HGET', LIM, 'until'), KEPT_MS)
  if closed_ms > 0 then return {'closed', closed_ms} end
  if count > 0 and made_lately(window_ms) >= count then
    local at = redis.call('ZREVRANGE', MADE, count - 1, count - 1, 'WITHSCORES')[2]
    return {'budget', math.max(1, tonumber(at) + window_ms - now)}
  end
  if is_full(limit, enough > 0) then return crowded(enough > 0) end
  if enough == 0 then end_turn() end
  write(name, new_record('intent'))
  redis.call('ZADD', MADE, int(now), name)
  return {'ok'}
end

-- name:state:owned:tenant:uses:age ms:lease ms:exec id; state 'gone': it does not exist any more
--   -> 'ok', 'revoked' (another session has it) or 'absent'
local function apply(entry, restoring)
  local f = {}
  for field in string.gmatch(entry .. ':', '([^:]*):') do f[#f + 1] = field end
  local name, state, lease_ms = f[1], f[2], tonumber(f[7])
  local r = read(name)
  redis.call('HDEL', PREFIX .. 'lost:' .. session, name)
  if r and r.session ~= session then
    -- After a flush two may remember the same parked member. Whoever has it in use took it last.
    local newer = restoring and r.state == 'warm' and state ~= 'warm' and left(redis.call('GET', REC), RECOVERY_MS) > 0
    if not newer then return 'revoked' end
    tell_revoked(r.session, name)
  elseif r and turn <= r.turn then
    return 'ok' -- older than what is known
  end
  if state == 'gone' then
    if r then forget(name, r) end
    return 'ok'
  end
  if not r and not restoring then return 'absent' end
  local created = r and r.created or now - tonumber(f[6])
  write(name, {state = state, session = session, turn = turn, since = r and r.state == state and r.since or now, created = created,
               owned = f[3], tenant = f[4], uses = f[5], exec = f[8], till = lease_ms > 0 and now + lease_ms or 0,
               parked = r and r.parked or 0}, r)
  return 'ok'
end

local function apply_all(restoring)
  local answer = {'ok'}
  for i = 5, math.min(#ARGV, 4 + MEMBERS_MAX) do answer[#answer + 1] = apply(ARGV[i], restoring) end
  return answer
end

-- 5... members as they are now, see apply() -> 'ok', and a word for each. What is older than what is known changes nothing.
function operations.note()
  return apply_all(false)
end

-- The same for members of which Redis may know nothing: after a flush, or when it has lost its last writes.
function operations.restore()
  return apply_all(true)
end

-- 5 name, empty = what others have parked last of this generation  6 'preparing' or 'destroying'  7 generation
-- 8 as 11 of renew()  9 1 = to be ready, nobody waits for it
--   -> 'ok' and what describe() says, 'none', or 'crowded' or 'recovering' and when to ask again, ms
function operations.take()
  local name, to, generation = ARGV[5], ARGV[6], ARGV[7]
  local limit, for_stock = may_run(tonumber(ARGV[8] or 0)), ARGV[9] == '1'
  local again = not first_time()
  if again and name == '' then return handed_over({'ok'}) end
  local answer = {'ok'}
  local function may_take(found, r)
    return r and r.state == 'warm' and (r.session == session or is_stock(r)) and
           (to ~= 'preparing' or string.match(found, '%-(%x+)%-[^-]*$') == generation)
  end
  local r = name ~= '' and read(name)
  if name ~= '' then
    if r and r.session == session and r.state == to then
      describe(answer, name, r)
      return answer
    end
    if again then return {'stale'} end
  end
  -- What we have parked ourselves since a flush is nobody else's.
  if recovering() > 0 and not (r and r.session == session) then return {'none'} end
  if to == 'destroying' then limit = 0 end
  -- Nor has everybody told what runs.
  if recovering() > 0 and limit > 0 then return {'recovering', recovering()} end
  for _, found in ipairs(name ~= '' and {name} or redis.call('ZREVRANGE', WARM, 0, LOOKED_AT_MAX - 1)) do
    r = read(found)
    if may_take(found, r) and (name ~= '' or r.session ~= session) then
      -- What runs on after its parking takes no other place; of what others have parked the last one is the first to be met.
      if left(r.since + LINGER_MS, LINGER_MS) == 0 and is_full(limit, for_stock) then return crowded(for_stock) end
      if to == 'preparing' and not for_stock then end_turn() end
      if r.session ~= session then tell_revoked(r.session, found) end
      describe(answer, found, hand_over(found, r, to))
      return answer
    end
  end
  return {'none'}
end

-- 5 Sprite of a session, which is about to be woken for a command  6 as 11 of renew()
--   -> 'ok', or 'crowded' or 'recovering' and when to ask again, ms: it does not run then
function operations.run()
  local sprite, limit = ARGV[5], may_run(tonumber(ARGV[6]))
  if not first_time() and turn < tonumber(redis.call('HGET', TURN, session)) then return {'stale'} end
  if limit > 0 and redis.call('SISMEMBER', ASLEEP, sprite) == 1 then
    if recovering() > 0 then return {'recovering', recovering()} end
    if is_full(limit, false) then return crowded(false) end
    end_turn()
  end
  redis.call('SREM', ASLEEP, sprite)
  return {'ok'}
end

local function bury(dead)
  for _, key in ipairs({SES, LISTERS, CROWD, ASKED}) do redis.call('ZREM', key, dead) end
  for _, key in ipairs({SAID, WANT, TURN}) do redis.call('HDEL', key, dead) end
  redis.call('DEL', PREFIX .. 'lost:' .. dead)
end

-- 5 at most so many  6 1 = tell all records of this session as well
-- Members of sessions that have ended become ours: what is parked stays so, all else is to be destroyed. -> 'ok' and describe() of each
function operations.adopt()
  local most, own = math.min(tonumber(ARGV[5]), MEMBERS_MAX), ARGV[6] == '1'
  local answer = {'ok'}
  if first_time() then
    for _, dead in ipairs(ended()) do
      for _, name in ipairs(most > 0 and redis.call('SRANDMEMBER', PREFIX .. 'of:' .. dead, most) or {}) do
        local r = read(name)
        -- Its owner died before it could say that it had become a session's.
        if redis.call('SISMEMBER', KEPT, name) == 1 then
          forget(name, r)
        else
          hand_over(name, r, r.state == 'warm' and 'warm' or 'destroying')
        end
        most = most - 1
      end
      if redis.call('EXISTS', PREFIX .. 'of:' .. dead) == 0 then bury(dead) end
    end
  end
  for _, name in ipairs(redis.call('SMEMBERS', PREFIX .. 'of:' .. session)) do
    local r = read(name)
    -- Redis has lost its owner's note that it had become a session's.
    if own and redis.call('SISMEMBER', KEPT, name) == 1 then
      forget(name, r)
    elseif own or r.turn == turn then
      describe(answer, name, r)
    end
  end
  return answer
end

-- Sprites that the provider has and we know nothing of. Those that went while the list was made are none.
local function strike_strangers(seen, began, answer)
  for _, name in ipairs(redis.call('ZRANGE', STRANGE, 0, -1)) do
    if redis.call('SISMEMBER', seen, name) == 0 then redis.call('ZREM', STRANGE, name) end
  end
  local room = MEMBERS_MAX
  for _, name in ipairs(redis.call('SMEMBERS', seen)) do
    local known = redis.call('HEXISTS', MEMBERS, name) == 1 or redis.call('SISMEMBER', KEPT, name) == 1
    if not known and tonumber(redis.call('ZSCORE', GONE, name) or 0) < began then
      local first = math.min(now, tonumber(redis.call('ZSCORE', STRANGE, name) or now))
      if first <= now - STRIKE_MS and room > 0 then
        room = room - 1
        write(name, new_record('destroying'))
        answer[#answer + 1] = name
        answer[#answer + 1] = 0
      else
        redis.call('ZADD', STRANGE, int(first), name)
      end
    end
  end
end

local EXISTS = {preparing = true, warm = true, hot = true, leased = true, recycling = true, quarantine = true}

-- Records of Sprites that the provider does not have. Only their owner, who asks about each, can say that they are gone.
local function strike_missing(seen, began, answer)
  for _, name in ipairs(redis.call('HKEYS', MEMBERS)) do
    local r = read(name)
    if redis.call('SISMEMBER', seen, name) == 1 or not EXISTS[r.state] or r.created >= began then
      redis.call('ZREM', MISSING, name)
    else
      local first = math.min(now, tonumber(redis.call('ZSCORE', MISSING, name) or now))
      redis.call('ZADD', MISSING, int(first), name)
      if first <= now - STRIKE_MS and r.session == session then
        answer[#answer + 1] = name
        answer[#answer + 1] = 1
      end
    end
  end
end

-- 5 turn of the first call for this list  6 'last' or 'more'  7 names in the whole list  8... names
--   -> 'ok' and, with the last ones, each name that has its second strike with 1 = it is one of our records, 0 = it is now, to be
-- destroyed; 'late': somebody else lists by now, or the list is not whole
function operations.sweep()
  local seen, last, count = PREFIX .. 'seen:' .. ARGV[5], ARGV[6] == 'last', tonumber(ARGV[7])
  local who, _, began = string.match(redis.call('GET', SWEEP) or '', '^(.*) (%d+) (%d+)$')
  if who ~= session or count > SEEN_MAX then return {'late'} end
  for i = 8, #ARGV do redis.call('SADD', seen, ARGV[i]) end
  redis.call('PEXPIRE', seen, int(STRIKE_MS))
  if not last then return {'ok'} end
  if redis.call('SCARD', seen) ~= count then return {'late'} end
  local answer, first = {'ok'}, first_time()
  if first then strike_strangers(seen, tonumber(began), answer) end
  for _, name in ipairs(first and {} or redis.call('SMEMBERS', PREFIX .. 'of:' .. session)) do
    if read(name).turn == turn then
      answer[#answer + 1] = name
      answer[#answer + 1] = 0
    end
  end
  strike_missing(seen, tonumber(began), answer)
  redis.call('SET', LISTED, began)
  return answer
end

if op ~= 'join' then
  if redis.call('GET', INC) ~= incarnation then return {'flushed'} end
  if left(redis.call('ZSCORE', SES, session), SESSION_MS) == 0 then return {'fenced'} end
end
return operations[op]()
