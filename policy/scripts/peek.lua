-- peek: what is known of a token, its commands and its sessions. Writes nothing
--
-- KEYS[1]  the token's record, sg:{g}:k:<kid>
-- ARGV     1 kid  2 mac  3 pepper id  4 scope  5 the client's address as 32 hexadecimal digits, empty when it is not known
--          6 id of a command, or 'sessions'; anything else is no command, and the limits are told
--          7 actor of a caller that the gateway vouches for, and that has no token; empty = by its token  8 the policy it follows
-- Returns  as admit.lua

local kid, mac, pepper, scope, address, looked_for = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local identity, identity_policy = ARGV[7] or '', ARGV[8] or ''

-- include shared/sums.lua
-- include shared/caller.lua

reason = forbidden()
if reason then return report(reason, 0, '', 0) end
if looked_for == 'sessions' then return report('sessions', 0, '', 0, table.concat((list_sessions()), ' ')) end
return report(known_of(looked_for))
