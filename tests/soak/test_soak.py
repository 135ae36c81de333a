"""Ten minutes of all that the gateway does, through two gateways on one pool, with aborts, faults of Sprites, restarts of Redis and
Datasette, and settings that change; SG_SOAK_SECONDS says how long. docs/SOAK.md tells what is asked for.

A round has a part in which things fail, a recovery, and a calm part in which everything has to work. In both every answer is compared with
what is right, and between the first rounds and the last nothing may grow.
"""
import collections
import os
import signal
import statistics
import time

import pytest

from fault_mix import check_starts
from rig import LARGER, SLOWER, leases, until
from storm import MIB, Numbers, seen
from traffic import Caller
from world import HOT, MOST, Trouble, World

SECONDS = int(os.environ.get("SG_SOAK_SECONDS", "600"))
TROUBLED, CALM = 300, 200       # requests of a round
CALLERS = 12
RECOVERY_S = 120 * SLOWER       # a Sprite of unknown fate counts for 90 s, and the longest pause between two tries is 30 s (docs/POOL.md)
MEMORY_MIB = 2 * LARGER
UNTOLD_PERCENT = 20     # of the commands that ran while things failed: nobody knows how they ended, or their time was over before
FEW_DESCRIPTORS = 2

pytestmark = pytest.mark.timeout(SECONDS * 2 + 1200)


class Soak:
    def __init__(self, world):
        self.world, self.seed = world, os.environ.get("SG_SEED", "1")
        self.rounds, self.troubles, self.recoveries = [], collections.Counter(), []
        self.lost, self.refused_calmly, self.wrong, self.seen = [], [], [], []
        self.statuses, self.calm_statuses, self.codes = (collections.Counter() for _ in range(3))
        self.exited, self.compared, self.reused, self.outcomes = (collections.Counter() for _ in range(4))

    def round(self):
        self.send(TROUBLED, calm=False)
        ended = time.monotonic()
        self.world.until_quiet(RECOVERY_S)
        self.recoveries.append(time.monotonic() - ended)
        self.send(CALM, calm=True)
        self.world.until_quiet(RECOVERY_S)
        self.rounds.append([seen(gateway) for gateway in self.world.gateways])
        print(f"round {len(self.rounds)}: {self.rounds[-1]}, recovered in {self.recoveries[-1]:.0f} s, "
              f"{self.world.fleet.sprites.state()['created']} Sprites so far, {len(self.lost)} lost, {len(self.refused_calmly)} refused, "
              f"{len(self.wrong)} wrong", flush=True)

    def send(self, requests, calm):
        seed, numbers = f"{self.seed} {len(self.rounds)} {calm}", Numbers(requests)
        trouble = Trouble(self.world, seed, self.troubles, calm)
        callers = [Caller(self.world, numbers, f"{seed} {i}", calm) for i in range(CALLERS)]
        for thread in (trouble, *callers):
            thread.start()
        for caller in callers:
            caller.join()
            self.take(caller)
        trouble.stop()
        self.troubles.update(trouble.done)

    def take(self, caller):
        for what in (*caller.failures, *caller.refused_calmly, *caller.wrong):
            print(f"round {len(self.rounds) + 1}, calm: {caller.calm}: {what}", flush=True)
        self.lost += caller.failures
        self.refused_calmly += caller.refused_calmly
        self.wrong += caller.wrong
        self.seen += caller.seen
        (self.calm_statuses if caller.calm else self.statuses).update(caller.statuses)
        if not caller.calm:
            self.outcomes.update(caller.outcomes)
        for name in ("codes", "exited", "compared", "reused"):
            getattr(self, name).update(getattr(caller, name))

    def growth(self, what):
        """From the first third of the rounds to the last, without the very first, which warms up; of the gateway that grew more."""
        rounds = self.rounds[1:]
        if len(rounds) < 2:
            return 0
        third = max(1, len(rounds) // 3)
        return max(statistics.median(one[gateway][what] for one in rounds[-third:]) - statistics.median(one[gateway][what] for one in rounds[:third])
                   for gateway in range(len(self.world.gateways)))

    def untold(self):
        """Percent."""
        untold = self.outcomes["unknown"] + self.outcomes["timed_out"]
        return round(100 * untold / max(1, untold + self.outcomes["exited"]), 1)

    def waited(self):
        """Commands that were not given a Sprite within a second."""
        found = [gateway.metrics() for gateway in self.world.gateways]
        return sum(one.get("spritegate_exec_queue_seconds_count") - one.get("spritegate_exec_queue_seconds_bucket", le="1") for one in found)

    def table(self):
        """What is counted → (how much, the most that it may be)."""
        state = self.world.fleet.sprites.state()
        return {
            "requests without an answer, or with one that is not documented": (len(self.lost), 0),
            "refused or failed while all was calm": (len(self.refused_calmly), 0),
            "answers that are wrong": (len(self.wrong), 0),
            "commands started twice": (sum(count > 1 for count in state["starts"].values()), 0),
            "outcomes that the starts contradict": (len(check_starts(self.seen, state["starts"])), 0),
            "rows told as written that are not there": (len(self.world.written.ids - self.world.rows()), 0),
            "reloads without effect, or that closed a connection": (len(self.world.reload_failures), 0),
            "commands of unknown end or out of time while things failed, %": (self.untold(), UNTOLD_PERCENT),
            "longest recovery after faults, s": (round(max(self.recoveries, default=0)), RECOVERY_S),
            "Sprites leaked": (state["created"] - state["destroyed"] - HOT, 0),
            "Sprites at once": (state["max_alive"], MOST),
            "leases held": (leases(self.world.fleet.store), 0),
            "growth of memory, MiB": (round(self.growth("rss") / MIB, 1), MEMORY_MIB),
            "growth of descriptors": (self.growth("fds"), FEW_DESCRIPTORS),
            "growth of threads": (self.growth("threads"), 0),
        }

    def broken(self):
        """Prints it all; returns what is above its bound."""
        print(f"\n{len(self.rounds)} rounds; while things failed {dict(self.statuses)}, while all was calm {dict(self.calm_statuses)}; refusals {dict(self.codes)}")
        print(f"{sum(self.exited.values())} commands exited {dict(self.exited)}, the output of {sum(self.compared.values())} compared {dict(self.compared)}")
        print(f"{dict(self.reused)}, {len(self.world.written.ids)} rows, {self.cache_hits():.0f} answers from the cache, "
              f"{self.world.reloads} reloads, {dict(self.troubles)}; each gateway's at the end {self.rounds[-1:]}")
        print(f"{self.waited():.0f} commands waited for a Sprite for longer than a second; ends while things failed {dict(self.outcomes)}")
        print(*self.world.reload_failures, sep="\n")
        table = self.table()
        for what, (count, bound) in table.items():
            print(f"  {what:64} {count:>8}   at most {bound:<4} {'BROKEN' if count > bound else 'ok'}", flush=True)
        return {what: count for what, (count, bound) in table.items() if count > bound}

    def cache_hits(self):
        return self.world.gateways[0].metrics().get("spritegate_cache_requests_total", result="hit")


def test_nothing_is_lost_or_wrong_and_nothing_grows(rig):
    world = World(rig)
    soak, end = Soak(world), time.monotonic() + SECONDS
    try:
        while len(soak.rounds) < 3 or time.monotonic() < end:
            soak.round()
    except Exception:
        soak.broken()     # what does not become quiet may be what is counted there
        raise
    assert not soak.broken(), [gateway.descriptors() for gateway in world.gateways]
    assert soak.statuses[200] > soak.statuses[503] and world.written.ids, "too little of it worked to show anything"
    assert {"exec", "output", "sleep", "stream", "session", "rows", "mcp"} <= set(soak.compared), f"not all kinds of commands were seen to work: {soak.compared}"
    assert set(soak.troubles) == set(Trouble.acts), f"not all trouble came: {soak.troubles}"
    assert soak.waited(), "no command had to wait: the pool is not smaller than what is asked of it"
    assert soak.cache_hits() and soak.reused, "neither the cache nor kept connections were used"
    for gateway in world.gateways:
        gateway.signal(signal.SIGTERM)
    for gateway in world.gateways:
        assert gateway.wait(60) == 0
    until(lambda: set(world.fleet.states()) <= {"warm"}, "Sprites are left behind", 60 * SLOWER)
