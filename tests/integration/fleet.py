"""Several gateways on one pool: one Redis, one emulator, and what the records say beside what really is."""
import collections

from rig import until

POOL = "shared"
PREFIX = f"sg:{{g}}:pool:{POOL}:"


class Fleet:
    """`known`: as if a list had been made and no flush were near, so that nobody waits for the recovery at the start."""

    def __init__(self, rig, *flags, count=3, known=True, tokens=2, sessions=None, **settings):
        self.rig, self.redis, self.emulator = rig, rig.redis(), rig.emulator(*flags)
        rig.add(self, lambda: self.redis.kill())    # of several that took each other's place, the last one
        self.settings = {"pool_shared": 1, "pool_name": POOL, "pool_max": 8, "pool_hot": 1, **settings}
        if known:
            self.redis.client.mset({PREFIX + "inc": "made-by-the-test", PREFIX + "listed": "1"})
        self.gateways = [self.start(f"g{number}", wait=False) for number in range(count)]
        for gateway in self.gateways:
            gateway.until_up(gateway.serves)
        self.tokens = [rig.mint(self.redis, sessions=sessions)["token"] for _ in range(tokens)]
        for gateway in self.gateways:
            gateway.token = self.tokens[0]

    @property
    def store(self):
        return self.redis.client

    @property
    def sprites(self):
        return self.emulator.view

    def start(self, instance, wait=True, **more):
        return self.rig.gateway(redis=self.redis, emulator=self.emulator, instance=instance, token=False, wait=wait, **{**self.settings, **more})

    def until_ready(self, seconds=60):
        for gateway in self.gateways:
            if gateway.alive():
                gateway.until_ready(seconds)

    def now_ms(self):
        seconds, micros = self.store.time()
        return seconds * 1000 + micros // 1000

    def records(self):
        """name → (state, session)"""
        return {name: tuple(text.split(":")[:2]) for name, text in self.store.hgetall(PREFIX + "m").items()}

    def states(self, session=None):
        """How many in each state, of one session or of all."""
        return collections.Counter(state for state, owner in self.records().values() if session in (None, owner))

    def session_of(self, instance):
        return f"{instance}/{self.store.hget(PREFIX + 'ins', instance)}"

    def living(self):
        return set(self.store.zrangebyscore(PREFIX + "ses", f"({self.now_ms()}", "+inf"))

    def leaked(self):
        """Sprites that no record tells of."""
        return set(self.sprites.names()) - self.records().keys()

    def orphans(self):
        """Records whose session has ended."""
        living = self.living()
        return {name: (state, session) for name, (state, session) in self.records().items() if session not in living}

    def stuck(self):
        """Members that are leased though nobody runs a command."""
        return [name for name, (state, _) in self.records().items() if state == "leased"]

    def leases(self):
        """Of tokens, those that have not ended: what a dead gateway held ends by itself."""
        now = self.now_ms()
        return sum(self.store.zcount(key, now, "+inf") for key in self.store.scan_iter("sg:{g}:c:*"))

    def at_rest(self):
        return not self.leaked() and not self.orphans() and not self.stuck() and set(self.records()) == set(self.sprites.names()) \
            and not self.leases()

    def until_at_rest(self, seconds=150):
        return until(self.at_rest, lambda: f"nothing is left over: leaked {self.leaked()}, orphans {self.orphans()}, stuck {self.stuck()}, "
                     f"records {self.records()}, Sprites {self.sprites.names()}, leases {self.leases()}", seconds, interval=0.2)
