-- session: which Sprites are kept for sessions, and which of them are to be destroyed
--
-- KEYS[1]  sg:{g}:sn
-- ARGV     1 operation  2... of the operation, below
--
-- admit.lua decides who may use a session and which Sprite it has; here is what a gateway says of it afterwards. A Sprite that is kept
-- is in `sn`, in `ss` and in the set of its scope, the pool that it came from, where it counts against the maximum, until it is known
-- not to exist. Its session may have ended before: its entry in `sn` is then the scope alone. Times are milliseconds of Redis' clock.

local PREFIX = 'sg:{g}:'
local SPRITES, ENDS = KEYS[1], PREFIX .. 'ss'
local DUE_MAX = 25    -- handed over by one call
local LATER_MS = 5000 -- a session that is in use is looked at again
local GONE_MS = 600000 -- longer than pool.lua wants to know it
local SESSIONS_MS = 30 * 86400000

local op = ARGV[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- tostring() would write 1.7950000001235e+15
local function int(value)
  return string.format('%.0f', value)
end

local function kept_of(scope)
  return PREFIX .. 'pool:' .. scope .. ':kept'
end

-- As admit.lua writes it.
local function read(kid, name)
  local text = redis.call('HGET', PREFIX .. 's:' .. kid, name) or ''
  local sprite, lease, used, created, fresh = string.match(text, '^([^:]*):([^:]*):(%d+):(%d+):([01])$')
  return sprite and {sprite = sprite, lease = lease, used = tonumber(used), created = tonumber(created), fresh = fresh}
end

local function write(kid, name, s)
  redis.call('HSET', PREFIX .. 's:' .. kid, name, table.concat({s.sprite, s.lease, int(s.used), int(s.created), s.fresh}, ':'))
  redis.call('PEXPIRE', PREFIX .. 's:' .. kid, int(SESSIONS_MS))
end

local function is_held(kid, lease)
  local leases = PREFIX .. 'c:' .. kid
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. int(now), '+inf')) do
    if string.sub(member, 1, #lease + 1) == lease .. ':' then return true end
  end
  return false
end

local function last(s, idle_ms, age_ms)
  return int(math.min(now + idle_ms, s.created + age_ms))
end

local operations = {}

-- 2 kid  3 session  4 lease of the command that it was opened for  5 Sprite  6 scope  7 idle ms  8 age ms
--   -> 'ok', or 'ended': it was closed meanwhile, or the command's lease has ended
function operations.bind(kid, name, lease, sprite, scope, idle_ms, age_ms)
  local s = read(kid, name)
  if not s or s.lease ~= lease or (s.sprite ~= '' and s.sprite ~= sprite) or not is_held(kid, lease) then return {'ended'} end
  s.sprite = sprite
  write(kid, name, s)
  redis.call('HSET', SPRITES, sprite, scope .. ' ' .. kid .. ' ' .. name)
  redis.call('SADD', kept_of(scope), sprite)
  redis.call('ZADD', ENDS, last(s, tonumber(idle_ms), tonumber(age_ms)), sprite)
  return {'ok'}
end

-- 2 kid  3 session  4 lease of the command that has ended  5 1 = no command has been started in it so far  6 idle ms  7 age ms
-- One that has no Sprite is forgotten. -> 'ok', or 'ended'
function operations.release(kid, name, lease, fresh, idle_ms, age_ms)
  local s = read(kid, name)
  if not s or s.lease ~= lease then return {'ended'} end
  if s.sprite == '' then
    redis.call('HDEL', PREFIX .. 's:' .. kid, name)
    return {'ok'}
  end
  s.lease, s.used, s.fresh = '', now, fresh
  write(kid, name, s)
  redis.call('ZADD', ENDS, last(s, tonumber(idle_ms), tonumber(age_ms)), s.sprite)
  return {'ok'}
end

-- Its session has ended; whoever looks first destroys it.
local function abandon(sprite, at)
  local scope, kid, name = string.match(redis.call('HGET', SPRITES, sprite) or '', '^(%S+) (%S+) (%S+)$')
  if kid then
    local s = read(kid, name)
    if s and s.sprite == sprite then redis.call('HDEL', PREFIX .. 's:' .. kid, name) end
    redis.call('HSET', SPRITES, sprite, scope)
  end
  redis.call('ZADD', ENDS, at, sprite)
end

-- 2 Sprite: it does not exist any more, as far as was seen. -> 'ok'
function operations.lost(sprite)
  if redis.call('HEXISTS', SPRITES, sprite) == 1 then abandon(sprite, int(now)) end
  return {'ok'}
end

local function is_in_use(sprite)
  local kid, name = string.match(redis.call('HGET', SPRITES, sprite) or '', '^%S+ (%S+) (%S+)$')
  local s = kid and read(kid, name)
  return s and s.sprite == sprite and is_held(kid, s.lease)
end

-- Its token was revoked, or does not exist any more. Who has none (@) has no record.
local function is_revoked(sprite)
  local kid = string.match(redis.call('HGET', SPRITES, sprite) or '', '^%S+ ([^@ ]%S*) %S+$')
  local status = kid and redis.call('HGET', PREFIX .. 'k:' .. kid, 'status')
  return kid and (not status or status == 'revoked')
end

-- 2 scope  3 whoever asks later is not told the same ones before so many ms have passed
--   -> 'ok', how many are kept in the scope, their names, then names, of any scope, that are to be destroyed
function operations.due(scope, lock_ms)
  local kept = redis.call('SMEMBERS', kept_of(scope))
  local answer = {'ok', #kept}
  for _, sprite in ipairs(kept) do
    answer[#answer + 1] = sprite
    if is_revoked(sprite) then redis.call('ZADD', ENDS, int(now), sprite) end
  end
  for _, sprite in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', int(now), 'LIMIT', 0, DUE_MAX)) do
    if is_in_use(sprite) then
      redis.call('ZADD', ENDS, int(now + LATER_MS), sprite)
    else
      abandon(sprite, int(now + tonumber(lock_ms)))
      answer[#answer + 1] = sprite
    end
  end
  return answer
end

-- 2 Sprite: it does not exist any more, for certain. -> 'ok'
function operations.gone(sprite)
  local scope = string.match(redis.call('HGET', SPRITES, sprite) or '', '^%S+')
  if scope and redis.call('SREM', kept_of(scope), sprite) == 1 then
    redis.call('ZADD', PREFIX .. 'pool:' .. scope .. ':gone', int(now), sprite) -- a list under way may still have it (pool.lua)
    redis.call('PEXPIRE', PREFIX .. 'pool:' .. scope .. ':gone', GONE_MS)
    redis.call('SREM', PREFIX .. 'pool:' .. scope .. ':asleep', sprite)
  end
  redis.call('HDEL', SPRITES, sprite)
  redis.call('ZREM', ENDS, sprite)
  return {'ok'}
end

return operations[op](unpack(ARGV, 2))
