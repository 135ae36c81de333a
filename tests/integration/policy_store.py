"""The policy's scripts and records as the tests use them."""
import datetime
import hashlib
import hmac
import itertools
import pathlib
import re
import secrets
import uuid
import zlib

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPTS = TOP / "policy/scripts"
CLOCK = "redis.call('TIME')"
PEPPER = b"pepper of the policy tests, 32 bytes or more"
DAY_US = 86_400_000_000
SECOND = 1_000_000
NOON = 1_795_003_200_000_000        # 2026-11-18 12:00 UTC, µs
MIDNIGHT = NOON + DAY_US // 2
GRACE_MS = 15_000
UNRENEWED_MS = 60_000
USUAL_OUT, MOST_OUT = 1 << 20, 64 << 20
IDLE_MS, AGE_MS = 900_000, 21_600_000
SCOPE, SPRITE = "pool", "sg-a-0000-1"
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


def command_of(lease):
    """An id whose end is the lease's."""
    return str(uuid.UUID(f"0193e3f0{lease}"))


def lease_of(command):
    return command.replace("-", "")[-24:]


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


class Sessions(Store):
    """With the script that tells what became of a session, which is told the time as well."""

    def __init__(self, redis, now_ms=1_790_000_000_000):
        super().__init__(redis, now_ms * 1000)
        text = self.text("session")
        assert text.count(CLOCK) == 1
        self.run_session = redis.register_script(text.replace(CLOCK, "redis.call('HMGET', 'test:now', 's', 'us')"))

    def session(self, *args):
        self.redis.hset("test:now", mapping={"s": self.clock // 1_000_000, "us": self.clock % 1_000_000})
        return self.run_session(keys=["sg:{g}:sn"], args=args)

    def pass_ms(self, ms):
        self.clock += ms * 1000

    def bind(self, token, name, lease, sprite=SPRITE, idle=IDLE_MS, age=10 * IDLE_MS):
        return self.session("bind", token.kid, name, lease, sprite, SCOPE, idle, age)

    def release(self, token, name, lease, fresh=0, idle=IDLE_MS, age=10 * IDLE_MS):
        return self.session("release", token.kid, name, lease, fresh, idle, age)

    def due(self):
        """(what is kept, what is to be destroyed)"""
        word, count, *names = self.session("due", SCOPE, 60_000)
        assert word == "ok"
        return names[:count], names[count:]

    def use(self, token, name="work", sprite=SPRITE, **more):
        """A command that begins and ends; what the session was before."""
        lease = lease_id()
        granted = self.admit(token, lease, session=name, **more)
        assert granted.code == "granted", granted
        if granted.what.startswith(" "):
            assert self.bind(token, name, lease, sprite) == ["ok"]
        assert self.release(token, name, lease) == ["ok"]
        self.settle(token, lease, granted)
        return granted.what


class Answer:
    def __init__(self, reply):
        self.reply = reply
        assert len(reply) in (1, len(REPLY)), reply
        self.__dict__.update(zip(REPLY, reply))

    def __repr__(self):
        return repr(dict(zip(REPLY, self.reply)))
