"""Two gateways on one pool with all that they need, and what happens to it."""
import collections
import contextlib
import pathlib
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time

import rig as rigs
from fleet import Fleet
from rig import BINARY, DATASETTE, TOP, free_port, until
from sample import SECRET
from storm import CSV, MIB, PAGES, until_quiet
from test_websocket import echo
from traffic import NAMES, Outages, Session, Written
from wire import CutOff, Wire

MOST = 8            # Sprites: fewer than callers and sessions, so commands wait
HOT = 2             # one a gateway
SQL_LIMIT_MS = 100_000      # what it interrupts on a loaded machine it writes into the CSV, and ends that in order
KIB = 1024
LIMITS = range(160 * KIB, 400 * KIB, 16 * KIB)      # of bodies, above those that are sent
FAULTS = ["cut_before_start", "cut_after_start", "cut_before_output", "cut_after_output", "cut_before_exit", "cut_mid_frame", "no_exit_code",
          "duplicate_exit", "kill_vm", "create_500", "create_429", "delete_500", "false_404", "starting_503", "wrong_type", "missing_field"]


class Datasette(rigs.Part):
    def __init__(self, folder, port):
        self.folder, self.port, self.url = folder, port, f"http://127.0.0.1:{port}"
        super().__init__("datasette", [*DATASETTE, "serve", folder / "sample.db", "-c", TOP / "tests/fixtures/datasette.yml",
                                       "-h", "127.0.0.1", "-p", port, "--setting", "sql_time_limit_ms", SQL_LIMIT_MS], {"DATASETTE_SECRET": SECRET})
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

    def page(self, path):
        with Wire(self.port) as wire:
            return wire.ask("GET", path, host="a").answer().body

    def pages(self):
        """Those that are the same each time; others tell how long they took."""
        return {path: self.page(path) for path in [*PAGES, CSV] if self.page(path) == self.page(path)}


class World:
    """Two gateways, before Datasette, with a response cache, and before a server that echoes WebSockets; each has a file of settings."""

    def __init__(self, rig):
        self.rig = rig
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=rigs.LOGS))
        shutil.copytree(rig.stack.folder / "datasette", self.folder / "data", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
        self.datasette = rig.add(Datasette(self.folder / "data", free_port()), lambda: self.datasette.kill())
        self.pages = self.datasette.pages()
        assert {CSV, "/sample/stations.json"} <= set(self.pages), list(self.pages)
        self.upstream = rig.upstream()
        self.upstream.routes["/echo"] = echo
        # Refused creations name a limit that leaves enough of them.
        self.fleet = Fleet(rig, "--create-limit", "1000/1s", count=0, tokens=0, pool_max=MOST, pool_wait_seconds=60, max_websockets=100,
                           client_idle_seconds=3600, wrong_token_burst=0, redis_timeout_ms=2000)
        self.token = rig.mint(self.fleet.redis, conc=1000, sessions=len(NAMES))["token"]
        self.files = {}
        self.gateways = [self.start("before-datasette", datasette_url=self.datasette.url, cache_bytes=8 * MIB),
                         self.start("before-echo", datasette_url=self.upstream.url)]
        self.outages, self.written = Outages(), Written()
        self.sessions = {name: Session(name) for name in NAMES}
        self.reloads, self.reload_failures = 0, []

    def start(self, instance, **settings):
        file = self.folder / f"{instance}.conf"
        limit = self.write(file, LIMITS[0])
        gateway = self.fleet.start(instance, argv=[BINARY, "serve", "--config", file], **settings)
        self.files[gateway] = file, limit
        gateway.token = self.token
        gateway.until_ready()
        return gateway

    def write(self, file, limit):
        file.write_text(f"exec_max_body_bytes = {limit}\n", encoding="utf-8")
        return limit

    # -- settings that change -----------------------------------------------------

    def reload(self, gateway, source):
        """Another limit of bodies is in force soon, and a connection that was open is still."""
        file, old = self.files[gateway]
        limit = source.choice([limit for limit in LIMITS if limit != old])
        with Wire(gateway.port) as kept:
            self.ask(kept)
            self.files[gateway] = file, self.write(file, limit)
            gateway.signal(signal.SIGHUP)
            until(lambda: all(self.takes(gateway, limit) for _ in range(6)), lambda: f"bodies of {limit} bytes are taken and no larger ones", 60)
            self.ask(kept)
        assert gateway.metrics().get("spritegate_config_last_reload_successful") == 1

    def ask(self, wire):
        answer = wire.ask("GET", "/-/gateway/health").answer()
        assert answer.status == 200 and (answer["Connection"] or "").lower() != "close", (answer.status, answer.fields)

    def takes(self, gateway, limit):
        """A body that is no JSON is read, one byte more is refused before any of it has come."""
        fields = ("Content-Type: application/json", f"Authorization: Bearer {self.token}")
        with Wire(gateway.port) as small, Wire(gateway.port, limit=2) as large:
            large.ask("POST", "/-/agent/exec", f"Content-Length: {limit + 1}", *fields)
            with contextlib.suppress(TimeoutError, CutOff, ConnectionError):    # what was in force before is
                return (small.ask("POST", "/-/agent/exec", *fields, body=b" " * limit).answer().status, large.answer().status) == (400, 413)
        return False

    # -- rest ---------------------------------------------------------------------

    def end_sessions(self):
        for session in self.sessions.values():
            answer = self.gateways[0].http.delete(f"/-/agent/exec/sessions/{session.name}", headers={"Authorization": f"Bearer {self.token}"})
            assert answer.status_code in (200, 202, 204, 404), answer.text
            session.count = 0

    def until_quiet(self, seconds):
        """Everything works again and nothing is under way."""
        for gateway in self.gateways:
            until(gateway.connected, "Redis is connected", seconds)
            gateway.until_ready(seconds)
            until(lambda gateway=gateway: gateway.exec(command="echo 1").status_code == 200, "commands run again", seconds)
        self.end_sessions()
        for gateway in self.gateways:
            until_quiet(gateway, self.fleet.emulator, self.fleet.store, HOT, seconds)
        until(lambda: not self.outages.touch(time.monotonic()), "the last outage is over", seconds)

    def rows(self):
        """Those that Datasette has."""
        with contextlib.closing(sqlite3.connect(self.datasette.folder / "sample.db")) as database:
            return {int(row[0]) for row in database.execute("select id from soaked")}


class Trouble(threading.Thread):
    """Switches faults on and off, takes Redis and Datasette away, and has settings read again. What was not done yet comes first.
    `calm`: only what must disturb nobody."""

    acts = {"fault": 60, "clear": 10, "reload": 10, "freeze_redis": 12, "restart_redis": 4, "restart_datasette": 4}     # how often, among 100

    def __init__(self, world, seed, before, calm=False):
        super().__init__()
        self.world, self.done, self.failure = world, collections.Counter(), None
        self.random, self.over = random.Random(seed), threading.Event()
        self.mine = {"reload": 1} if calm else self.acts
        self.first = [act for act in self.mine if not before[act]]

    def run(self):
        try:
            while not self.over.wait(self.random.uniform(0.5, 3)):
                act = self.first.pop(0) if self.first else self.random.choices(*zip(*self.mine.items()))[0]
                getattr(self, act)()
                self.done[act] += 1
        except Exception as failure:        # noqa: BLE001  raised by stop()
            self.failure = failure

    def fault(self):
        self.world.fleet.sprites.fault(self.random.choice(FAULTS), rate=self.random.choice([0.05, 0.3]), count=self.random.randint(1, 10))

    def clear(self):
        self.world.fleet.sprites.clear_faults()

    def reload(self):
        gateway = self.random.choice(self.world.gateways)
        try:
            self.world.reload(gateway, self.random)
            self.world.reloads += 1
        except (AssertionError, CutOff, OSError) as failure:
            self.world.reload_failures.append(f"{gateway.instance}: {failure!r}")

    def freeze_redis(self):
        with self.world.fleet.redis.frozen():
            self.over.wait(self.random.uniform(0.05, 4))

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
