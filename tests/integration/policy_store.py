"""The policy's scripts and records as the tests use them, and a second implementation of the rules to compare with."""
import collections
import datetime
import fnmatch
import hashlib
import hmac
import itertools
import pathlib
import re
import secrets
import zlib

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPTS = TOP / "policy/scripts"
CLOCK = "redis.call('TIME')"
PEPPER = b"pepper of the policy tests, 32 bytes or more"
DAY_US = 86_400_000_000
GRACE_MS = 15_000
UNRENEWED_MS = 60_000
RENEWED_MS = 75_000
USUAL_OUT, MOST_OUT = 1 << 20, 64 << 20
IDLE_MS, AGE_MS = 900_000, 21_600_000
HERE = "00000000000000000000ffff7f000001"       # 127.0.0.1
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

REPLY = ("code actor pol ver granted_ms day violated wait_us reaped granted_out max_in "
         "rate_n rate_per_ms burst left reset_us arate_n arate_per_ms aburst actor_left actor_reset_us "
         "conc running aconc actor_running bud_ms used held day_left_us bud_out out_used out_held shadowed what egress max_sessions valid_ms "
         "max_procs max_file max_mem").split()

LIMITS = {"rate_n": 600, "rate_per_ms": 1000, "burst": 1000, "conc": 1000, "max_ms": 300_000}

numbers = itertools.count(1)


def pepper_id(pepper=PEPPER):
    return hmac.new(pepper, b"spritegate pepper id", hashlib.sha256).hexdigest()[:8]


def mac_of(secret, pepper=PEPPER):
    return hmac.new(pepper, secret.encode(), hashlib.sha256).hexdigest()


def date(us):
    return datetime.datetime.fromtimestamp(us // 1_000_000, datetime.UTC).strftime("%Y%m%d")


def lease_id():
    return secrets.token_hex(12)


def documented_acl(user):
    """The words that docs/POLICY.md tells operators to give Redis."""
    for line in (TOP / "docs/POLICY.md").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[:3] == ["ACL", "SETUSER", user]:
            return ["ACL", "SETUSER", user, "reset", *[">pw" if word == ">PASSWORD" else word for word in words[3:]]]
    raise AssertionError(f"docs/POLICY.md has no ACL for {user}")


class Token:
    def __init__(self, store, actor="ann", kid=None, **fields):
        self.store = store
        self.kid = kid or f"K{next(numbers):015d}"
        self.secret = "s" * 32
        self.mac = mac_of(self.secret)
        self.actor = actor
        self.set(**{"mac": self.mac, "pep": pepper_id(), "status": "active", "actor": actor, "scopes": "exec:run", "ver": 1,
                    **LIMITS, **fields})

    @classmethod
    def existing(cls, store, kid):
        """One that the command line has made."""
        token = cls.__new__(cls)
        token.store, token.kid = store, kid
        token.mac, token.actor = store.redis.hmget(token.key, "mac", "actor")
        return token

    @property
    def key(self):
        return f"sg:{{g}}:k:{self.kid}"

    def text(self, secret=None):
        """As its owner holds it."""
        text = f"sgt_{self.kid}_{secret or self.secret}"
        crc, digits = zlib.crc32(text.encode()), ""
        for _ in range(6):
            crc, digit = divmod(crc, 62)
            digits = DIGITS[digit] + digits
        return text + digits

    def set(self, **fields):
        gone = [name for name, value in fields.items() if value is None]
        if gone:
            self.store.redis.hdel(self.key, *gone)
        kept = {name: value for name, value in fields.items() if value is not None}
        if kept:
            self.store.redis.hset(self.key, mapping=kept)


class Caller:
    """Somebody without a token, whom the gateway vouches for."""

    def __init__(self, actor="ann"):
        self.kid, self.actor, self.mac = f"@{next(numbers):015d}", actor, ""
        self.key = f"sg:{{g}}:k:{self.kid}"


class Store:
    """A Redis with both scripts. With `clock` set (µs) the scripts are told the time; the shipped text cannot be."""

    def __init__(self, redis, clock=None):
        self.redis = redis
        self.clock = clock
        self.admit_text = self.text("admit")
        self.peek_text = self.text("peek")
        self.settle_text = self.text("settle")
        self.renew_text = self.text("renew")
        if clock is not None:
            assert {text.count(CLOCK) for text in (self.admit_text, self.peek_text, self.settle_text, self.renew_text)} == {1}
            self.peek_text = self.peek_text.replace(CLOCK, "{ARGV[31], ARGV[32]}")
            self.admit_text = self.admit_text.replace(CLOCK, "{ARGV[31], ARGV[32]}")
            self.settle_text = self.settle_text.replace(CLOCK, "{ARGV[31], ARGV[32]}")
            self.renew_text = self.renew_text.replace(CLOCK, "{ARGV[31], ARGV[32]}")
        self.run_admit = redis.register_script(self.admit_text)
        self.peek_sha = redis.script_load(self.peek_text)
        self.run_settle = redis.register_script(self.settle_text)
        self.run_renew = redis.register_script(self.renew_text)

    @staticmethod
    def text(name):
        """As it is built: with what it includes."""
        text = (SCRIPTS / f"{name}.lua").read_text(encoding="utf-8")
        return re.sub(r"^-- include (shared/\w+\.lua)\n", lambda line: (SCRIPTS / line[1]).read_text(encoding="utf-8"), text, flags=re.M)

    def args(self, *args):
        """With the time, when the scripts are told it, where they look for it."""
        times = [] if self.clock is None else [self.clock // 1_000_000, self.clock % 1_000_000]
        return [*args, *[""] * (30 - len(args)), *times]

    def admit(self, token, lease=None, want=1000, program="bash", scope="exec:run", mac=None, pepper=None, client=None,
              wait=0, size=0, address=HERE, variables="", usual_out=USUAL_OUT, most_out=MOST_OUT, ends="",
              key="", fingerprint="", command="", session="", idle=IDLE_MS, age=AGE_MS, policy=""):
        reply = self.run_admit(keys=[token.key], client=client, args=self.args(
            token.kid, mac or token.mac, pepper or pepper_id(), scope, program, want, lease or lease_id(), wait, size,
            address, variables, usual_out, most_out, ends, key, fingerprint, command,
            session, idle, age, token.actor if policy else "", policy))
        return Answer(reply)

    def peek(self, token, what="-", scope="exec:run", mac=None, pepper=None, client=None, address=HERE, policy=""):
        """Redis lets it write nothing, but for a `client`, which may run less."""
        args = self.args(token.kid, mac or token.mac, pepper or pepper_id(), scope, address, what, token.actor if policy else "", policy)
        return Answer((client or self.redis).execute_command("EVALSHA" if client else "EVALSHA_RO", self.peek_sha, 1, token.key, *args))

    def settle(self, token, lease, granted=None, used=0, out=0, refund=False, client=None, command="", result="", keep_ms=3_600_000,
               degraded=False):
        """`granted`: an Answer, or None when the answer was never seen."""
        actor = token.actor if granted else ""
        return self.run_settle(keys=[token.key], client=client, args=self.args(
            token.kid, lease, actor, used, out, int(refund), command, result, keep_ms, int(degraded)))

    def renew(self, token, lease):
        return self.run_renew(keys=[token.key], args=self.args(token.kid, lease, token.actor))

    def policy(self, name, **fields):
        """Named rules, as a whole."""
        key = f"sg:{{g}}:p:{name}"
        with self.redis.pipeline() as both:
            both.delete(key)
            if fields:
                both.hset(key, mapping=fields)
            both.execute()

    def tat(self, key):
        """(TAT, tau) of `t:<kid>` or `at:<actor>`, or None."""
        found = self.redis.get("sg:{g}:" + key)
        return found and tuple(int(number) for number in found.split(":"))

    def leases(self, token):
        return self.redis.zrange(f"sg:{{g}}:c:{token.kid}", 0, -1)

    def budget(self, token, day):
        found = self.redis.hgetall(f"sg:{{g}}:b:{token.kid}:{day}")
        return {name: int(value) for name, value in found.items()}

    def snapshot(self):
        """Every key with its bytes, and Redis' count of changes."""
        return {key: self.redis.dump(key) for key in self.redis.scan_iter()}, self.changes()

    def changes(self):
        return self.redis.info("persistence")["rdb_changes_since_last_save"]


class Answer:
    def __init__(self, reply):
        self.reply = reply
        assert len(reply) in (1, len(REPLY)), reply
        self.__dict__.update(zip(REPLY, reply))

    def __repr__(self):
        return repr(dict(zip(REPLY, self.reply)))


class Model:
    """The rules of docs/POLICY.md over again: plain integers, one dictionary a kind of key."""

    def __init__(self):
        self.records = {}
        self.policies = {}
        self.tat = {}
        self.leases = collections.defaultdict(dict)     # kid or actor → {member: end ms}
        self.spent = collections.defaultdict(lambda: {"used": 0, "held": 0, "out": 0, "out_held": 0, "reqs": 0})

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
              secret="mac"):
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
        what = self.denied_variable(r["env_allow"] or "", variables)
        known = self.held(kid, lease)
        if known:       # asked before: the same answer, and nothing more is taken
            _, granted, granted_day, *_, reserved = known.split(":")
            code, granted, granted_out = "known", int(granted), int(reserved.removeprefix("out=")) // 2
        elif not self.network_allowed(r["ip_allow"] or "", address) and refuses("network"):
            code = "network"
        elif r["cmds"] and program not in r["cmds"].split() and refuses("command"):
            code = "command"
        elif what and refuses("environment"):
            code = "environment"
        elif r["max_in"] and size > r["max_in"] and refuses("input"):
            code = "input"
        else:
            found = []
            for name, key, count, per_ms, burst in limits:
                interval, tau, tat = self.bucket(key, now, count, per_ms, burst)
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
            for _, key, count, per_ms, burst in limits:
                interval, tau, tat = self.bucket(key, now, count, per_ms, burst)
                if tat + interval - tau > now:
                    charges += [0, 0]
                else:
                    self.tat[key] = tat + interval, tau
                    charges += [interval, tau]
            charges += [0, 0] * (2 - len(limits))
            member = ":".join(str(part) for part in (lease, want, day, now, *charges, f"out={2 * each}"))
            for key in ("c", kid), ("ac", actor):
                self.leases[key][member] = now_ms + min(want, UNRENEWED_MS) + GRACE_MS
            spent["held"] += want
            spent["out_held"] += 2 * each
            spent["reqs"] += 1
            running, actor_running, held, granted, granted_day = running + 1, actor_running + 1, held + want, want, day
            out_held, granted_out = out_held + 2 * each, each

        code = "granted" if known else code
        states = [self.left(now, *self.bucket(key, now, count, per_ms, burst)) for _, key, count, per_ms, burst in limits]
        states.append((0, 0))
        version = self.policies[own["pol"]]["ver"] if "pol" in own else own["ver"]
        max_in = 0 if code == "granted" and "input" in shadow else r["max_in"]
        ends = [r["exp"]] * ("exp" in own) + [own.get("pmac_until", 0)] * (secret == "old")
        return [code, actor, own.get("pol", ""), version, granted, granted_day, ",".join(violated), wait, reaped, granted_out, max_in,
                r["rate_n"], r["rate_per_ms"], r["burst"], *states[0],
                r["arate_n"], r["arate_per_ms"], r["aburst"], *states[1],
                r["conc"], running, r["aconc"], actor_running, r["bud_ms"], used, held, left_of_day,
                r["bud_out"], out_used, out_held, ",".join(shadowed), what if code == "environment" else "", r["egress"] or "", 0,
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

    def settle(self, kid, actor, lease, used, out, refund, now):
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
