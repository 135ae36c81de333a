"""Parts of a stack that tests start, look into, disturb and stop: Redis, the Sprites emulator, gateways.

Every part runs on a free port of 127.0.0.1, logs into a folder of the test run and is stopped by its pid.
"""
import contextlib
import itertools
import json
import os
import pathlib
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import httpx
import redis

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.append(str(TOP / "deploy"))
from stack import free_port  # noqa: E402

PYTHON = os.environ.get("SG_PYTHON", sys.executable)
PRESET = os.environ.get("SG_PRESET", "release")
BINARY = TOP / "build" / PRESET / "spritegate"
DATASETTE = [PYTHON, TOP / "tests/fixtures/plain_datasette.py"]

# What a build with sanitizers may take longer and larger than the one that ships.
SLOWER = {"asan": 4, "tsan": 10}.get(PRESET, 1)
LARGER = {"asan": 6, "tsan": 10}.get(PRESET, 1)

PATIENCE = 60 * max(1, SLOWER // 2)
# A loaded machine may stop any process for longer than the default of 40 ms; where that is the point tests say so.
PATIENT_REDIS_MS = 1000
QUICK = ("--create-delay", "50ms", "--wake-delay", "30ms", "--cold-wake-delay", "50ms", "--offline")
LIKE_LIVE = ("--create-delay", "1500ms", "--wake-delay", "300ms", "--offline")

LOGS = pathlib.Path(tempfile.mkdtemp(prefix="spritegate-it-"))
numbers = itertools.count(1)


def until(condition, what, seconds=PATIENCE, interval=0.02):
    """Poll until `condition()` is true; returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(interval)


def median_ms(seconds):
    return statistics.median(seconds) * 1000


START_MS = 2        # what starting a process takes on the machine that the bars were chosen on


def slowness():
    """How much slower this machine is at the moment than that one; at least 1."""
    times = []
    for _ in range(9):
        began = time.monotonic()
        subprocess.run(["true"], check=True)
        times.append(time.monotonic() - began)
    return max(1, median_ms(times) / START_MS)


# ./tests/run bars: on a quiet machine, by the bars themselves, and over more rounds.
BARS = os.environ.get("SG_BARS") == "1"


def margin():
    """How many times its bar what is timed may take, on a machine as slow as this one is at the moment."""
    return 1 if BARS else 5 * SLOWER * slowness()


def check_median(measure, bar_ms, what, rounds=5, tries=4):
    """`measure()` gives seconds. The median of some rounds is below the bar; since a loaded machine only adds, a few tries are allowed."""
    tried = []
    for _ in range(tries):
        factor = slowness()
        tried.append([measure() for _ in range(rounds)])
        if median_ms(tried[-1]) <= bar_ms * (1 if BARS else max(factor, slowness())):
            return
    times = [[round(seconds * 1000) for seconds in one] for one in tried]
    raise AssertionError(f"{what} is above {bar_ms} ms: {times} ms")


def client(**more):
    return httpx.Client(trust_env=False, timeout=60, follow_redirects=False, **more)


class Part:
    """One process of our own."""

    def __init__(self, name, argv, env=None, cwd=None):
        self.name = f"{name}-{next(numbers)}"
        self.log_path = LOGS / f"{self.name}.log"
        self.out_path = LOGS / f"{self.name}.out"
        with open(self.log_path, "wb") as log, open(self.out_path, "wb") as out:
            self.process = subprocess.Popen([str(word) for word in argv], env=clean_environment(env), cwd=cwd or TOP,
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True)
        self.pid = self.process.pid

    @property
    def log(self):
        """What it wrote to standard error."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def out(self):
        return self.out_path.read_text(encoding="utf-8", errors="replace")

    def alive(self):
        return self.process.poll() is None

    def signal(self, number):
        os.kill(self.pid, number)

    @contextlib.contextmanager
    def frozen(self):
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self):
        if self.alive():
            self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def wait(self, seconds=PATIENCE):
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {seconds} s; log: {self.log[-3000:]}") from None

    def stop(self):
        if self.alive():
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not stop; log: {self.log[-3000:]}") from None

    def until_up(self, probe):
        def up():
            assert self.alive(), f"{self.name} ended while starting: {self.out[-1000:]}{self.log[-3000:]}"
            return probe()
        until(up, f"{self.name} is ready", interval=0.01)


def clean_environment(more=None):
    """The caller's environment without settings of other gateways."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SPRITEGATE_")}
    env.update(no_proxy="127.0.0.1,localhost,::1", NO_PROXY="127.0.0.1,localhost,::1")
    env.update(more or {})
    return env


class Redis(Part):
    def __init__(self, port=None, folder=None, settings=()):
        self.port = port or free_port()
        self.folder = folder or tempfile.mkdtemp(dir=LOGS)
        super().__init__("redis", ["redis-server", TOP / "deploy/redis.conf", "--port", self.port, "--dir", self.folder, *settings])
        self.url = f"redis://127.0.0.1:{self.port}"
        self.client = redis.Redis(port=self.port, decode_responses=True, socket_timeout=60)
        self.until_up(self.answers)

    def answers(self):
        try:
            return self.client.ping()
        except redis.RedisError:
            return False

    def again(self):
        """A new server with the same port and data, after this one was killed."""
        self.kill()
        return Redis(self.port, self.folder)


def leases(store):
    """Concurrency leases that are held, of all tokens."""
    return sum(store.zcard(key) for key in store.scan_iter("sg:{g}:c:*"))


OWN_DISK = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o "$0" none /mnt && exec env TMPDIR=/mnt "$@"']


class Emulator(Part):
    TOKEN = "org/1/secret-of-the-emulator"

    def __init__(self, *flags, quick=True, disk=None):
        port = free_port()
        flags = (*(QUICK if quick else ()), *flags)
        own = OWN_DISK + [f"mode=711,{disk}"] if disk else []
        super().__init__("emulator", [*own, PYTHON, TOP / "tests/emulator", "--listen", f"127.0.0.1:{port}",
                                      "--token", self.TOKEN, *flags])
        self.url = f"http://127.0.0.1:{port}"
        self.token = self.TOKEN
        self.view = Sprites(self.url, self.token)
        self.until_up(self.view.answers)


class Sprites:
    """What really happened, as the emulator tells it, and its faults."""

    def __init__(self, url, token):
        self.url, self.token = url, token
        self.http = client(base_url=url)

    def answers(self):
        try:
            return self.http.get("/_emulator/state").status_code == 200
        except httpx.TransportError:
            return False

    def state(self):
        return self.http.get("/_emulator/state").json()

    def names(self):
        return [sprite["name"] for sprite in self.state()["sprites"]]

    def alive(self):
        return len(self.state()["sprites"])

    def starts(self, exec_id):
        return self.state()["starts"].get(exec_id, 0)

    def until_alive(self, count, seconds=PATIENCE):
        until(lambda: self.alive() == count, lambda: f"{count} Sprites exist; there are {self.names()}", seconds)

    def until_waiting(self, name):
        """What was started ahead of a command is there, and has been told of: no fault meets that any more."""
        until(lambda: any(sprite["waits"] for sprite in self.state()["sprites"] if sprite["name"] == name), "something waits for its command")

    def fault(self, name, **more):
        answer = self.http.post("/_emulator/faults", json={"name": name, **more})
        assert answer.status_code == 200, answer.text

    def clear_faults(self):
        assert self.http.delete("/_emulator/faults").status_code == 204

    def faults(self):
        return self.http.get("/_emulator/faults").json()["faults"]

    def hits(self, name):
        return sum(fault["hits"] for fault in self.faults() if fault["name"] == name)

    def pause(self, name):
        answer = self.http.post("/_emulator/pause", json={"sprite": name})
        assert answer.status_code == 200, answer.text

    def create(self, name):
        answer = self.http.post("/v1/sprites", json={"name": name}, headers={"Authorization": f"Bearer {self.token}"})
        assert answer.status_code == 201, answer.text

    @contextlib.contextmanager
    def faulty(self, name, **more):
        self.fault(name, **more)
        try:
            yield
        finally:
            self.clear_faults()


METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """One scrape."""

    def __init__(self, text):
        self.text = text
        self.samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                found = METRIC.fullmatch(line)
                assert found, f"not a sample line: {line!r}"
                name, labels, value = found.groups()
                key = name, tuple(sorted(LABEL.findall(labels or "")))
                assert key not in self.samples, f"the series {key} is there twice"
                self.samples[key] = float(value)

    def get(self, name, **labels):
        """The sum of the series that have these labels; an absent family is an error."""
        values = [value for (family, has), value in self.samples.items()
                  if family == name and set(labels.items()) <= set(has)]
        assert values, f"no series {name} {labels}"
        return sum(values)


class Gateway:
    """Where a gateway is, and what one does with it."""

    def __init__(self, url, admin, pid, token=None):
        self.url, self.admin, self.pid, self.token = url, admin, pid, token
        self.port = int(url.rpartition(":")[2])
        self.http = client(base_url=url)
        self.admin_http = client(base_url=admin)

    def get(self, path, **more):
        return self.http.get(path, **more)

    def exec(self, body=None, token=None, headers=None, http=None, **fields):
        """POST /-/agent/exec; `body` is sent as it is, otherwise the fields are the JSON object."""
        more = {"content": body} if body is not None else {"json": fields}
        return (http or self.http).post("/-/agent/exec", headers={
            "Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json", **(headers or {})}, **more)

    def run(self, command=None, token=None, **fields):
        """A command that is expected to run: its checked answer."""
        from answers import Ran
        if command is not None:
            fields["command"] = command
        return Ran(self.exec(token=token, **fields))

    def until_settled(self, token=None):
        """What the commands of a token have used is booked: their answers do not wait for that."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        until(lambda: self.get("/-/agent/exec/quota", headers=headers).json()["concurrency"]["running"] == 0, "all is settled")

    def metrics(self):
        answer = self.admin_http.get("/metrics")
        assert answer.status_code == 200, f"/metrics: {answer.status_code} {answer.text[:500]}"
        return Metrics(answer.text)

    def health(self):
        return self.http.get("/-/gateway/health")

    def ready(self):
        try:
            return self.admin_http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def full(self):
        """As many Sprites as wanted are ready or in use."""
        try:
            pool = self.admin_http.get("/health/ready").json()["pool"]
        except httpx.TransportError:
            return False
        return pool["hot"] + pool["leased"] >= pool["target"]

    def serves(self):
        try:
            return self.health().status_code == 200
        except httpx.TransportError:
            return False

    def connected(self):
        """It serves, and each of its threads has reached Redis: from then on commands are not refused for that."""
        return self.serves() and self.health().json()["redis"] == "up"

    def until_ready(self, seconds=PATIENCE):
        until(lambda: self.ready() and self.full(), lambda: f"the pool is full: {self.admin_http.get('/health/ready').text}", seconds)

    def rss(self):
        """Resident bytes."""
        return int(self.status("VmRSS").split()[0]) * 1024

    def forget_peak(self):
        """Resident bytes, from which peak() counts from now on; where that is not allowed it counts from the start."""
        with contextlib.suppress(PermissionError):
            pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")
        return self.rss()

    def peak(self):
        """The most bytes that were resident."""
        return int(self.status("VmHWM").split()[0]) * 1024

    def threads(self):
        return int(self.status("Threads"))

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def descriptors(self):
        """What the descriptors are, for messages: {"what": how many}; sockets by the port they are connected to."""
        sockets = {}
        for line in pathlib.Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            local, remote = (int(fields[i].split(":")[1], 16) for i in (1, 2))
            sockets[fields[9]] = f"tcp {local if local == self.port else '*'} → {remote if local != self.port else '*'}, state {fields[3]}"
        found = {}
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                what = os.readlink(f"/proc/{self.pid}/fd/{fd}")
                inode = re.fullmatch(r"socket:\[(\d+)\]", what)
                what = sockets.get(inode[1], "socket") if inode else what
                found[what] = found.get(what, 0) + 1
        return found

    def status(self, name):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return value.strip()
        raise AssertionError(f"/proc/{self.pid}/status has no {name}")


class OwnGateway(Part, Gateway):
    """A gateway started by a test, with its own settings."""

    def __init__(self, settings, wait=True, argv=None):
        listen, admin = free_port(), free_port()
        env = {
            "SPRITEGATE_LISTEN": f"127.0.0.1:{listen}",
            "SPRITEGATE_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            "SPRITEGATE_INSTANCE": "test-" + secrets.token_hex(4),
            **{f"SPRITEGATE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.settings = env
        # What asan keeps of freed memory would look like growth.
        env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"
        Part.__init__(self, "gateway", argv or [BINARY, "serve"], env)
        Gateway.__init__(self, "http://" + env["SPRITEGATE_LISTEN"], "http://" + env["SPRITEGATE_ADMIN_LISTEN"], self.pid)
        self.instance = env["SPRITEGATE_INSTANCE"]
        if wait:
            self.until_up(self.connected)

    def access_log(self):
        """Its lines so far, as objects."""
        return [json.loads(line) for line in self.out.splitlines()]

    def until_logged(self, wanted, what="the access log has the line"):
        return until(lambda: next((line for line in self.access_log() if wanted(line)), None),
                     lambda: f"{what}; it has {self.out[-1500:]}")

    def stop_at_once(self):
        """Two signals: no waiting for what runs. It must still end in order."""
        if not self.alive():
            return
        self.signal(signal.SIGTERM)
        until(lambda: "drain: begun" in self.log or not self.alive(), "the drain has begun")
        if self.alive():
            self.signal(signal.SIGTERM)
        try:
            code = self.wait()
        finally:
            self.kill()
        assert code == 0, f"{self.name}: exit status {code} after two SIGTERM; log: {self.log[-3000:]}"


def mint(settings, **limits):
    """A new token: {"token", "kid"}. `settings` are the environment of a gateway on the same Redis."""
    limits = {"actor": "tester", "rate": "100000/1m", "burst": 10000, "conc": 100, **limits}
    argv = [str(BINARY), "token", "create", "--json"]
    for name, value in limits.items():
        if value is not None:
            argv += ["--" + name.replace("_", "-"), str(value)]
    made = subprocess.run(argv, env=clean_environment(settings), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    assert made.returncode == 0, f"{argv[1:]}: exit {made.returncode}: {made.stdout}{made.stderr}"
    return json.loads(made.stdout)


class Rig:
    """Starts parts and stops them all at the end, the last one first."""

    def __init__(self, stack):
        self.stack = stack
        self.parts = contextlib.ExitStack()

    def add(self, part, stop):
        self.parts.callback(stop)
        return part

    def redis(self, *settings):
        part = Redis(settings=settings)
        return self.add(part, part.kill)

    def emulator(self, *flags, quick=True, disk=None):
        """`disk`: mount options of a tmpfs of its own, on which its Sprites are; none = they are where temporary files are."""
        part = Emulator(*flags, quick=quick, disk=disk)
        return self.add(part, part.stop)

    def gateway(self, redis=None, emulator=None, wait=True, token=True, argv=None, **settings):
        """One more gateway; what is not given is the stack's. `token`: limits of the token it is given, or False."""
        stack = self.stack
        part = OwnGateway({
            "datasette_url": stack.datasette, "redis_url": redis.url if redis else stack.redis_url,
            "sprites_url": emulator.url if emulator else stack.sprites.url,
            "sprites_token": emulator.token if emulator else stack.sprites.token,
            "pepper": stack.pepper, "pool_hot": 0, "redis_timeout_ms": PATIENT_REDIS_MS, **settings}, wait=wait, argv=argv)
        self.add(part, part.stop_at_once)
        if token:
            part.minted = self.mint(redis, **(token if isinstance(token, dict) else {}))
            part.token, part.kid = part.minted["token"], part.minted["kid"]
        return part

    def upstream(self, port=0, tls=None):
        """In place of Datasette."""
        from nasty import Upstream
        upstream = Upstream(port, tls)
        return self.add(upstream, upstream.close)

    def mint(self, redis=None, **limits):
        return mint({"SPRITEGATE_PEPPER": self.stack.pepper,
                     "SPRITEGATE_REDIS_URL": redis.url if redis else self.stack.redis_url}, **limits)

    def close(self):
        self.parts.close()
