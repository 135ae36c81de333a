"""A second implementation of the policy's rules, to compare the scripts with."""
import collections
import fnmatch
import re

from policy_store import AGE_MS, DAY_US, GRACE_MS, IDLE_MS, MOST_OUT, SCOPE, UNRENEWED_MS, USUAL_OUT, date, lease_of

RENEWED_MS = 75_000
CLOSED_MS = 3000

Session = collections.namedtuple("Session", "sprite lease used created fresh")


class Model:
    """The rules of docs/POLICY.md over again: plain integers, one dictionary a kind of key."""

    def __init__(self):
        self.records = {}
        self.policies = {}
        self.tat = {}
        self.leases = collections.defaultdict(dict)     # kid or actor → {member: end ms}
        self.spent = collections.defaultdict(lambda: {"used": 0, "held": 0, "out": 0, "out_held": 0, "reqs": 0})
        self.keys = {}          # (kid, key) → (fingerprint, command)
        self.results = {}       # command → (kid, what it ended with, until ms)
        self.sessions = {}      # (kid, name) → Session
        self.ends = {}          # Sprite → when it is looked at, ms
        self.sprites = {}       # Sprite → "scope kid name", or the scope alone
        self.kills = {}         # lease → its mark

    def bucket(self, name, now, count, per_ms, burst):
        interval = max(1, per_ms * 1000 // count)
        tau = interval * burst
        tat, written_with = self.tat.get(name, (now, 0))
        tat = max(now, tat)
        if tat > now + (max(tau, written_with) if name[0] == "at" else tau):
            tat = now + tau - interval
        return interval, tau, tat

    @staticmethod
    def left(now, interval, tau, tat):
        left = (tau - (tat - now)) // interval
        return left, tat - now if left > 0 else tat + interval - tau - now

    def reap(self, kid, actor, now_ms):
        ended = [member for member, end in self.leases["c", kid].items() if end <= now_ms]
        for member in ended:
            _, want, day, *_, out = member.split(":")
            out = int(out.removeprefix("out="))
            del self.leases["c", kid][member]
            self.leases["ac", actor].pop(member, None)
            self.spent[kid, day]["held"] -= int(want)
            self.spent[kid, day]["used"] += int(want)
            self.spent[kid, day]["out_held"] -= out
            self.spent[kid, day]["out"] += out
        for member in [member for member, end in self.leases["ac", actor].items() if end <= now_ms]:
            del self.leases["ac", actor][member]
        return len(ended)

    def rules(self, kid):
        """The token's own over those of its policy."""
        own = self.records[kid]
        return collections.defaultdict(int, {**self.policies.get(own.get("pol"), {}), **own})

    @staticmethod
    def network_allowed(networks, address):
        if not networks.split():
            return True
        if not address:
            return False
        for network in networks.split():
            digits, bits = network.split("/")
            shift = 128 - int(bits)
            if int(digits, 16) >> shift == int(address, 16) >> shift:
                return True
        return False

    @staticmethod
    def denied_variable(patterns, variables):
        for name in variables.split():
            if patterns and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns.split()):
                return name
        return None

    def admit(self, kid, now, lease, want, program, size=0, address="", variables="", usual_out=USUAL_OUT, most_out=MOST_OUT,
              secret="mac", key="", fingerprint="", command="", session="", ends=""):
        own, r = self.records[kid], self.rules(kid)
        actor, now_ms, day, left_of_day = r["actor"], now // 1000, date(now), DAY_US - now % DAY_US
        if secret == "old" and own.get("pmac_until", 0) <= now_ms:
            return ["bad-mac"]
        if r["status"] != "active":
            return [r["status"]]
        if "pol" in own and own["pol"] not in self.policies:
            return ["broken-record"]
        if r["nbf"] > now_ms:
            return ["not-yet-valid"]
        if "exp" in own and r["exp"] <= now_ms:
            return ["expired"]
        reaped = self.reap(kid, actor, now_ms)
        want = min(want, r["max_ms"])
        each = min(r["max_out"], most_out) if r["max_out"] else usual_out
        limits = [("rate", ("t", kid), r["rate_n"], r["rate_per_ms"], r["burst"])]
        if r["arate_n"]:
            limits.append(("actor-rate", ("at", actor), r["arate_n"], r["arate_per_ms"], r["aburst"]))
        running, actor_running = len(self.leases["c", kid]), len(self.leases["ac", actor])
        spent = self.spent[kid, day]
        used, held, out_used, out_held = spent["used"], spent["held"], spent["out"], spent["out_held"]

        shadow, shadowed = (r["shadow"] or "").split(), []

        def refuses(name):
            if name in shadow:
                shadowed.append(name)
            return name not in shadow

        code, violated, wait, granted, granted_day, granted_out, charges = "granted", [], 0, 0, "", 0, []
        what, kept, denied = "", self.session(kid, session, now_ms), self.denied_variable(r["env_allow"] or "", variables)
        known = self.held(kid, lease)
        if known:       # asked before: the same answer, and nothing more is taken
            _, granted, granted_day, *_, reserved = known.split(":")
            code, granted, granted_out = "known", int(granted), int(reserved.removeprefix("out=")) // 2
            what = f"{kept.sprite} {int(not kept.sprite)}" if kept else ""
        elif not self.network_allowed(r["ip_allow"] or "", address) and refuses("network"):
            code = "network"
        elif ends == "session":
            code = self.close(kid, session, now_ms)
        elif ends:
            code, what = self.known_of(kid, ends, now_ms)
            if code == "running":
                its_lease = lease_of(ends)
                code = "ending" if its_lease in self.kills else "running"
                self.kills[its_lease] = its_lease if its_lease in self.kills else f"stop:{its_lease}"
        elif r["cmds"] and program not in r["cmds"].split() and refuses("command"):
            code = "command"
        elif denied and refuses("environment"):
            code, what = "environment", denied
        elif r["max_in"] and size > r["max_in"] and refuses("input"):
            code = "input"
        elif found := self.of_key(kid, key, fingerprint, now_ms):
            code, what = found
        elif found := self.of_session(kid, session, kept, r["sessions"] or 0, now_ms):
            code = found
        else:
            found = []
            for name, bucket, count, per_ms, burst in limits:
                interval, tau, tat = self.bucket(bucket, now, count, per_ms, burst)
                if tat + interval - tau > now:
                    found.append((name, tat + interval - tau - now))
            if running >= r["conc"]:
                found.append(("concurrency", 1_000_000))
            if r["aconc"] and actor_running >= r["aconc"]:
                found.append(("actor-concurrency", 1_000_000))
            if r["bud_ms"] and used + held + want > r["bud_ms"]:
                found.append(("budget", left_of_day if used + want > r["bud_ms"] else 1_000_000))
            if r["bud_out"] and out_used + out_held + 2 * each > r["bud_out"]:
                found.append(("output-budget", left_of_day if out_used + 2 * each > r["bud_out"] else 1_000_000))
            found = [(name, us) for name, us in found if refuses(name)]
            if found:
                code, violated, wait = "quota", [name for name, _ in found], max(us for _, us in found)
        if code == "granted":
            for _, bucket, count, per_ms, burst in limits:
                interval, tau, tat = self.bucket(bucket, now, count, per_ms, burst)
                if tat + interval - tau > now:
                    charges += [0, 0]
                else:
                    self.tat[bucket] = tat + interval, tau
                    charges += [interval, tau]
            charges += [0, 0] * (2 - len(limits))
            member = ":".join(str(part) for part in (lease, want, day, now, *charges, f"out={2 * each}"))
            for leases in ("c", kid), ("ac", actor):
                self.leases[leases][member] = now_ms + min(want, UNRENEWED_MS) + GRACE_MS
            spent["held"] += want
            spent["out_held"] += 2 * each
            spent["reqs"] += 1
            if key:
                self.keys[kid, key] = fingerprint, command
            if session:
                what = f"{kept.sprite} {kept.fresh}" if kept else " 1"
                self.sessions[kid, session] = Session(kept.sprite if kept else "", lease, now_ms, kept.created if kept else now_ms, "0")
            if kept:
                self.ends[kept.sprite] = min(now_ms + IDLE_MS, kept.created + AGE_MS)
            running, actor_running, held, granted, granted_day = running + 1, actor_running + 1, held + want, want, day
            out_held, granted_out = out_held + 2 * each, each

        code = "granted" if known else code
        states = [self.left(now, *self.bucket(bucket, now, count, per_ms, burst)) for _, bucket, count, per_ms, burst in limits]
        states.append((0, 0))
        version = self.policies[own["pol"]]["ver"] if "pol" in own else own["ver"]
        max_in = 0 if code == "granted" and "input" in shadow else r["max_in"]
        ends = [r["exp"]] * ("exp" in own) + [own.get("pmac_until", 0)] * (secret == "old")
        return [code, actor, own.get("pol", ""), version, granted, granted_day, ",".join(violated), wait, reaped, granted_out, max_in,
                r["rate_n"], r["rate_per_ms"], r["burst"], *states[0],
                r["arate_n"], r["arate_per_ms"], r["aburst"], *states[1],
                r["conc"], running, r["aconc"], actor_running, r["bud_ms"], used, held, left_of_day,
                r["bud_out"], out_used, out_held, ",".join(shadowed), what, r["egress"] or "", r["sessions"] or 0,
                min(ends) - now_ms if ends else 0, r["max_procs"] or 0, r["max_file"] or 0, r["max_mem"] or 0]

    def held(self, kid, lease):
        """The member of the lease, or None."""
        return next((member for member in self.leases["c", kid] if member.startswith(lease + ":")), None)

    def renew(self, kid, actor, lease, now):
        member, till = self.held(kid, lease), now // 1000 + RENEWED_MS
        if not member:
            return 0
        for key in ("c", kid), ("ac", actor):
            self.leases[key][member] = max(till, self.leases[key].get(member, 0))
        return 1

    def put_back(self, key, now, since, interval, tau):
        tat, written_with = self.tat.get(key, (now, 0))
        rest = interval - (now - since)
        if written_with == tau and now >= since and rest > 0 and now < tat <= now + tau:
            self.tat[key] = max(tat - rest, now), tau

    # --- what commands ended with, and the keys that started them

    def runs(self, kid, lease, now_ms):
        member = self.held(kid, lease)
        return member is not None and self.leases["c", kid][member] > now_ms

    def result(self, kid, command):
        """What it ended with; None: nothing is known."""
        owner, text, _ = self.results.get(command, (None, None, 0))
        return text if owner == kid else None

    def known_of(self, kid, command, now_ms):
        if self.runs(kid, lease_of(command), now_ms):
            return "running", ""
        result = self.result(kid, command)
        return ("absent", "") if result is None or result.startswith("0 ") else ("finished", result)

    def of_key(self, kid, key, fingerprint, now_ms):
        """Why nothing is started, and of what; None: something may be."""
        if not key or (kid, key) not in self.keys:
            return None
        made_with, command = self.keys[kid, key]
        if made_with != fingerprint:
            return "other-body", ""
        if self.runs(kid, lease_of(command), now_ms):
            return "in-progress", command
        result = self.result(kid, command)
        if result is None:
            return "forgotten", command
        return None if re.match(r"\d+ unrun\n", result) else ("replay", f"{command} {result}")

    def keep(self, kid, command, result, now_ms, keep_ms):
        """Those whose time is over go, a hundred at a time."""
        if not result or command in self.results:
            return
        over = sorted((end, f"{name}:{len(text)}", name) for name, (_, text, end) in self.results.items() if end <= now_ms)
        for _, _, name in over[:100]:
            del self.results[name]
        self.results[command] = kid, result, now_ms + keep_ms

    # --- sessions

    def session(self, kid, name, now_ms):
        """None: there is none, or not any more."""
        s = self.sessions.get((kid, name))
        return s if s and (self.runs(kid, s.lease, now_ms) or self.ends.get(s.sprite, 0) > now_ms) else None

    def of_session(self, kid, name, kept, limit, now_ms):
        if not name:
            return None
        if limit < 1:
            return "session-denied"
        if kept:
            return "session-busy" if self.runs(kid, kept.lease, now_ms) else None
        own = [other for owner, other in self.sessions if owner == kid]
        valid = [other for other in own if self.session(kid, other, now_ms)]
        for other in own:
            if other not in valid and not self.sessions[kid, other].sprite:
                del self.sessions[kid, other]
        return "session-limit" if len(valid) >= limit else None

    def close(self, kid, name, now_ms):
        s = self.session(kid, name, now_ms)
        if not s:
            return "absent"
        busy = self.runs(kid, s.lease, now_ms)
        del self.sessions[kid, name]
        if busy:
            self.kills[s.lease] = s.lease
        if s.sprite:
            self.sprites[s.sprite] = SCOPE
            self.ends[s.sprite] = now_ms + CLOSED_MS * busy
        return "session-closed"

    def bind(self, kid, name, lease, sprite, now_ms):
        s = self.sessions.get((kid, name))
        if not s or s.lease != lease or s.sprite not in ("", sprite) or not self.runs(kid, lease, now_ms):
            return "ended"
        self.sessions[kid, name] = s._replace(sprite=sprite)
        self.sprites[sprite] = f"{SCOPE} {kid} {name}"
        self.ends[sprite] = min(now_ms + IDLE_MS, s.created + AGE_MS)
        return "ok"

    def release(self, kid, name, lease, fresh, now_ms):
        s = self.sessions.get((kid, name))
        if not s or s.lease != lease:
            return "ended"
        if s.sprite:
            self.sessions[kid, name] = s._replace(lease="", used=now_ms, fresh=str(fresh))
            self.ends[s.sprite] = min(now_ms + IDLE_MS, s.created + AGE_MS)
        else:
            del self.sessions[kid, name]
        return "ok"

    def gone(self, sprite):
        del self.sprites[sprite], self.ends[sprite]

    def list_sessions(self, kid, now_ms):
        """As peek tells them, in any order."""
        return {f"{name}:{int(self.runs(kid, s.lease, now_ms))}:{max(0, now_ms - s.created)}:{max(0, now_ms - s.used)}:"
                f"{max(0, self.ends.get(s.sprite, 0) - now_ms)}"
                for (owner, name), s in self.sessions.items() if owner == kid and self.session(kid, name, now_ms)}

    # --- the end of a command

    def settle(self, kid, actor, lease, used, out, refund, now, command="", result="", keep_ms=0):
        settled = self.give_back(kid, actor, lease, used, out, refund, now)
        self.keep(kid, command, result, now // 1000, keep_ms)
        return settled

    def give_back(self, kid, actor, lease, used, out, refund, now):
        for member in list(self.leases["c", kid]):
            found, want, day, since, *charges, reserved = member.split(":")
            reserved = int(reserved.removeprefix("out="))
            if found == lease:
                del self.leases["c", kid][member]
                self.leases["ac", actor].pop(member, None)
                spent = self.spent[kid, day]
                spent["held"] -= int(want)
                spent["used"] += min(used, int(want))
                spent["out_held"] -= reserved
                spent["out"] += min(out, reserved)
                if refund:
                    spent["reqs"] -= 1
                    interval, tau, actor_interval, actor_tau = map(int, charges)
                    self.put_back(("t", kid), now, int(since), interval, tau)
                    if actor_interval:
                        self.put_back(("at", actor), now, int(since), actor_interval, actor_tau)
                return 1
        return 0
