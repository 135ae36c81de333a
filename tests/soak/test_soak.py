"""Ten minutes of all that the gateway does, through two gateways on one pool, with aborts, faults of Sprites, restarts of Redis and
Datasette, and settings read again; SG_SOAK_SECONDS says how long.

Whatever happens, nothing may be lost but what an outage took, nothing may be told wrong, and nothing may grow: between the first and the
last round memory, descriptors, threads, leases and Sprites stay where they were.
"""
import collections
import contextlib
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time

import pytest

import rig as rigs
from fleet import Fleet
from rig import LARGER, PYTHON, SLOWER, TOP, free_port, leases, until
from sample import SECRET
from storm import MIB, Numbers, seen, until_quiet
from test_websocket import echo
from traffic import NAMES, Caller, Outages, Written

SECONDS = int(os.environ.get("SG_SOAK_SECONDS", "600"))
ROUND = 300         # requests
CALLERS = 12
MOST = 8
HOT = 2             # one a gateway
FAULTS = ["cut_before_start", "cut_after_start", "cut_before_output", "cut_after_output", "cut_before_exit", "cut_mid_frame", "no_exit_code",
          "duplicate_exit", "kill_vm", "create_500", "create_429", "delete_500", "false_404", "starting_503", "wrong_type", "missing_field"]

pytestmark = pytest.mark.timeout(SECONDS * 2 + 600)


class Datasette(rigs.Part):
    def __init__(self, folder, port):
        self.folder, self.port, self.url = folder, port, f"http://127.0.0.1:{port}"
        super().__init__("datasette", [PYTHON, "-m", "datasette", "serve", folder / "sample.db", "-c", TOP / "tests/fixtures/datasette.yml",
                                       "-h", "127.0.0.1", "-p", port], {"DATASETTE_SECRET": SECRET})
        self.http = rigs.client(base_url=self.url)
        self.until_up(self.answers)

    def answers(self):
        try:
            return self.http.get("/-/versions.json").status_code == 200
        except rigs.httpx.TransportError:
            return False

    def again(self):
        self.kill()
        return Datasette(self.folder, self.port)


class World:
    """Two gateways, before Datasette and before a server that echoes WebSockets, and what they share."""

    def __init__(self, rig):
        self.rig = rig
        folder = pathlib.Path(tempfile.mkdtemp(dir=rigs.LOGS))
        shutil.copytree(rig.stack.folder / "datasette", folder / "data", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
        self.datasette = rig.add(Datasette(folder / "data", free_port()), lambda: self.datasette.kill())
        self.upstream = rig.upstream()
        self.upstream.routes["/echo"] = echo
        # Refused creations name a limit that leaves enough of them.
        self.fleet = Fleet(rig, "--create-limit", "1000/1s", count=0, tokens=0, pool_max=MOST, pool_wait_seconds=20, max_websockets=100)
        self.token = rig.mint(self.fleet.redis, conc=1000, sessions=len(NAMES))["token"]
        self.gateways = [self.fleet.start("before-datasette", datasette_url=self.datasette.url),
                         self.fleet.start("before-echo", datasette_url=self.upstream.url)]
        for gateway in self.gateways:
            gateway.token = self.token
            gateway.until_ready()
        self.outages, self.written = Outages(), Written()

    def end_sessions(self):
        for name in NAMES:
            answer = self.gateways[0].http.delete(f"/-/agent/exec/sessions/{name}", headers={"Authorization": f"Bearer {self.token}"})
            assert answer.status_code in (200, 202, 204, 404), answer.text

    def until_quiet(self):
        for gateway in self.gateways:
            gateway.until_ready(180 * SLOWER)
            until(lambda gateway=gateway: gateway.run("echo 1").stdout == "1\n", "commands run again")
        self.end_sessions()
        for gateway in self.gateways:
            until_quiet(gateway, self.fleet.emulator, self.fleet.store, HOT)

    def rows(self):
        """Those that Datasette has."""
        with contextlib.closing(sqlite3.connect(self.datasette.folder / "sample.db")) as database:
            return {int(row[0]) for row in database.execute("select id from soaked")}


class Trouble(threading.Thread):
    """Switches faults on and off, takes Redis and Datasette away, and has the settings read again. What was not done yet comes first."""

    acts = {"fault": 60, "clear": 10, "reload": 10, "freeze_redis": 12, "restart_redis": 4, "restart_datasette": 4}     # how often, among 100

    def __init__(self, world, seed, before):
        super().__init__()
        self.world, self.done, self.failure = world, collections.Counter(), None
        self.random, self.over = random.Random(seed), threading.Event()
        self.first = [act for act in self.acts if not before[act]]

    def run(self):
        try:
            while not self.over.wait(self.random.uniform(0.5, 3)):
                act = self.first.pop(0) if self.first else self.random.choices(*zip(*self.acts.items()))[0]
                getattr(self, act)()
                self.done[act] += 1
        except Exception as failure:        # noqa: BLE001  raised by stop()
            self.failure = failure

    def fault(self):
        self.world.fleet.sprites.fault(self.random.choice(FAULTS), rate=self.random.choice([0.05, 0.3]), count=self.random.randint(1, 10))

    def clear(self):
        self.world.fleet.sprites.clear_faults()

    def reload(self):
        self.random.choice(self.world.gateways).signal(signal.SIGHUP)

    def freeze_redis(self):
        with self.world.fleet.redis.frozen():
            self.over.wait(self.random.uniform(0.05, 1.5))

    def restart_redis(self):
        self.world.fleet.redis = self.world.fleet.redis.again()

    def restart_datasette(self):
        with self.world.outages:
            self.world.datasette = self.world.datasette.again()

    def stop(self):
        self.over.set()
        self.join()
        if self.failure:
            raise self.failure
        self.clear()


class Soak:
    def __init__(self, world):
        self.world, self.seed = world, os.environ.get("SG_SEED", "1")
        self.rounds, self.statuses, self.troubles = [], collections.Counter(), collections.Counter()
        self.lost, self.wrong, self.exited = [], [], collections.Counter()

    def round(self):
        seed, numbers = f"{self.seed} {len(self.rounds)}", Numbers(ROUND)
        trouble = Trouble(self.world, seed, self.troubles)
        callers = [Caller(self.world.gateways, self.world.token, numbers, f"{seed} {i}", self.world.outages, self.world.written)
                   for i in range(CALLERS)]
        for thread in (trouble, *callers):
            thread.start()
        for caller in callers:
            caller.join()
            self.lost += caller.failures
            self.wrong += caller.wrong
            self.statuses.update(caller.statuses)
            self.exited.update(caller.exited)
        trouble.stop()
        self.troubles.update(trouble.done)
        self.world.until_quiet()
        self.rounds.append([seen(gateway) for gateway in self.world.gateways])
        print(f"round {len(self.rounds)}: {self.rounds[-1]}, {self.world.fleet.sprites.state()['created']} Sprites so far, "
              f"{len(self.lost)} lost, {len(self.wrong)} wrong", flush=True)

    def growth(self, what):
        """From the second round, since the first one warms up, to the last; of the gateway that grew more."""
        return max(last[what] - first[what] for first, last in zip(self.rounds[1], self.rounds[-1])) if self.rounds[1:] else 0

    def table(self):
        state = self.world.fleet.sprites.state()
        return {
            "lost requests": len(self.lost), "wrong outcomes": len(self.wrong),
            "double runs": sum(count > 1 for count in state["starts"].values()),
            "rows that were told as written and are not there": len(self.world.written.ids - self.world.rows()),
            "leaked Sprites": state["created"] - state["destroyed"] - HOT, "Sprites above the maximum": max(0, state["max_alive"] - MOST),
            "leases held": leases(self.world.fleet.store), "threads grown": max(0, self.growth("threads")),
            "descriptors grown by more than 4": max(0, self.growth("fds") - 4),
            "memory grown by more than 24 MiB": int(self.growth("rss") > 24 * MIB * LARGER),
        }

    def show(self):
        """Prints it; returns the table."""
        print(f"\n{sum(self.statuses.values())} requests {dict(self.statuses)}, {dict(self.exited)} exited, {len(self.world.written.ids)} rows; "
              f"{dict(self.troubles)}")
        print(f"memory {self.growth('rss') / MIB:+.1f} MiB, descriptors {self.growth('fds'):+}, of each gateway's {self.rounds[-1:]}")
        print(f"lost: {self.lost[:5]}; wrong: {self.wrong[:5]}", flush=True)
        table = self.table()
        for what, count in table.items():
            print(f"  {what:50} {count}")
        return table


def test_nothing_is_lost_or_wrong_and_nothing_grows(rig):
    world = World(rig)
    soak, end = Soak(world), time.monotonic() + SECONDS
    try:
        while len(soak.rounds) < 3 or time.monotonic() < end:
            soak.round()
    except Exception:
        soak.show()     # what does not become quiet may be what is counted there
        raise
    table = soak.show()
    assert not any(table.values()), (table, soak.lost[:5], soak.wrong[:5], [gateway.descriptors() for gateway in world.gateways])
    assert soak.statuses[200] > soak.statuses[503] and world.written.ids, "too little of it worked to show anything"
    assert {"stream", "session", "rows", "mcp"} <= set(soak.exited), f"not all kinds of commands were seen to work: {soak.exited}"
    assert set(soak.troubles) == set(Trouble.acts), f"not all trouble came: {soak.troubles}"
    for gateway in world.gateways:
        gateway.signal(signal.SIGTERM)
    for gateway in world.gateways:
        assert gateway.wait(60) == 0
    until(lambda: set(world.fleet.states()) <= {"warm"}, "Sprites are left behind", 60 * SLOWER)
