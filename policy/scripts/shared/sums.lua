-- sums: what a token uses in a day, as it is read before anything is added to it
--
-- Redis takes back nothing of what a script that fails has written. So what is added to is looked at before the first write: what was
-- done by half would be taken for done the next time.

-- Of sg:{g}:b:<kid>:<day>: used, held, out, out_held, reqs. Nil and an error to answer with when nothing can be added to them.
local function sums(spent)
  local found = redis.pcall('HMGET', spent, 'used', 'held', 'out', 'out_held', 'reqs')
  if found.err then return nil, redis.error_reply(found.err .. ': ' .. spent) end
  for i, value in ipairs(found) do
    if value and (not string.find(value, '^%-?%d+$') or #value > 16) then return nil, redis.error_reply('WRONGTYPE no number in ' .. spent) end
    found[i] = tonumber(value or 0)
  end
  return found
end
