"""Ten minutes of mixed traffic with aborts, faults of Sprites, outages of Redis, and settings read again;
SG_SOAK_SECONDS says how long.

Whatever happens, nothing may grow: between the first and the last round memory, descriptors, threads, leases and Sprites
stay where they were, and no command is started twice or given an exit code that it did not have.
"""
import os
import random
import signal
import threading
import time

import pytest

from rig import LARGER, SLOWER, leases, until
from storm import MIB, seen, storm, until_quiet

SECONDS = int(os.environ.get("SG_SOAK_SECONDS", "600"))
ROUND = 300         # requests
HOT = 2
FAULTS = ["cut_before_start", "cut_after_start", "cut_before_output", "cut_after_output", "cut_before_exit", "cut_mid_frame", "no_exit_code",
          "duplicate_exit", "kill_vm", "create_500", "create_429", "delete_500", "false_404", "starting_503", "wrong_type", "missing_field"]

pytestmark = pytest.mark.timeout(SECONDS * 2 + 600)


class Trouble(threading.Thread):
    """Switches faults on and off, takes Redis away for moments, and has the settings read again."""

    def __init__(self, gateway, emulator, store, seed):
        super().__init__()
        self.gateway, self.emulator, self.store = gateway, emulator, store
        self.random, self.over = random.Random(seed), threading.Event()

    def run(self):
        while not self.over.wait(self.random.uniform(0.5, 3)):
            what = self.random.random()
            if what < 0.6:
                self.emulator.view.fault(self.random.choice(FAULTS), rate=self.random.choice([0.05, 0.3]), count=self.random.randint(1, 10))
            elif what < 0.7:
                self.emulator.view.clear_faults()
            elif what < 0.8:
                self.gateway.signal(signal.SIGHUP)
            else:
                with self.store.frozen():
                    self.over.wait(self.random.uniform(0.05, 1.5))

    def stop(self):
        self.over.set()
        self.join()
        self.emulator.view.clear_faults()


def show(rounds):
    print(f"\n{'round':>5}  {'memory MiB':>10}  {'descriptors':>11}  {'threads':>7}")
    for number, one in enumerate(rounds, 1):
        print(f"{number:5}  {one['rss'] / MIB:10.1f}  {one['fds']:11}  {one['threads']:7}", flush=True)


def test_nothing_grows(rig):
    emulator, store = rig.emulator(), rig.redis()
    gateway = rig.gateway(redis=store, emulator=emulator, pool_hot=HOT, pool_max=8, pool_wait_seconds=20, token={"conc": 1000})
    gateway.until_ready()
    seed = os.environ.get("SG_SEED", "1")
    rounds, end = [], time.monotonic() + SECONDS
    while len(rounds) < 3 or time.monotonic() < end:
        trouble = Trouble(gateway, emulator, store, f"{seed} {len(rounds)}")
        trouble.start()
        try:
            storm(gateway, gateway.token, ROUND, f"{seed} {len(rounds)}", troubled=True)
        finally:
            trouble.stop()
        until_quiet(gateway, emulator, store.client, HOT)
        rounds.append(seen(gateway))
        print(f"round {len(rounds)}: {rounds[-1]}, {emulator.view.state()['created']} Sprites so far", flush=True)
    show(rounds)
    first, last = rounds[1], rounds[-1]     # the first round warms up
    assert last["threads"] == first["threads"], f"threads: {first} → {last}"
    assert last["fds"] <= first["fds"] + 4, f"descriptors: {first['fds']} → {last['fds']}: {gateway.descriptors()}"
    assert last["rss"] <= first["rss"] + 24 * MIB * LARGER, f"memory: {[round(one['rss'] / MIB, 1) for one in rounds]} MiB"
    state = emulator.view.state()
    assert max(state["starts"].values()) == 1, "a command was started twice"
    assert state["max_alive"] <= 8 and state["created"] - state["destroyed"] == HOT, state
    until(lambda: leases(store.client) == 0, "no lease is held", 30 * SLOWER)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(60) == 0
    assert emulator.view.names() == [], "Sprites are left behind"
