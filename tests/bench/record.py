"""What it costs to keep a record of what a command prints: in the Sprite, on one control socket, and through the gateway, to which the
comparison with the record is added from 256 KiB on."""
import http.client
import json
import pathlib
import random
import time

import servers
from control_socket import RECORD, REPORT_BYTES, ControlSocket, launch
from exec_added import metrics
from figures import number, percentile, ratio, table
from processes import TICKS, NotMeasured, Programs

KINDS = {"true": ("true", 0), "echo": ("echo hello", 6), "100 KB": ("head -c 100000 /dev/zero | tr '\\0' x", 100_000),
         "4 MiB": ("head -c 4194304 /dev/zero | tr '\\0' x", 4 << 20)}
BLOCK = 10                  # commands of one way in a row, so that the clock of the CPU can tell them apart
LONGER = 2                  # a block of the large ones
POOL = {"pool_hot": 6, "pool_max": 20, "exec_max_output_bytes": "8MiB"}
PAUSE = (0.05, 0.1)
READY_SECONDS = 40
RANDOM = random.Random(1)


# -- in the Sprite

def ways(command):
    """Program with arguments, and input."""
    return {"bare": (["bash", "-lc", command], b"\n"), "shim": (launch(command), b"\n"), "shim, record": (launch(command), RECORD)}


def block(sprites, control, argv, given, size, count):
    before, times = tree_cpu(sprites), []
    for _ in range(count):
        began = time.perf_counter()
        code, output = control.run(argv, given)
        times.append((time.perf_counter() - began) * 1000)
        control.settle()
        if code or len(output) not in (size, size + REPORT_BYTES):
            raise NotMeasured(f"{argv}: exit {code}, {len(output)} bytes")
    return {"ms": percentile(times, 50), "cpu_ms": (tree_cpu(sprites) - before) * 1000 / count}


def tree_cpu(program):
    """utime + stime of the emulator and all that ran in its Sprites."""
    ticks = 0
    for pid in program.pids():
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
    return ticks / TICKS


def in_sprite(bench, sprites):
    control = ControlSocket(sprites.port, servers.SPRITES_TOKEN, "record")
    control.bring_shim()
    rounds = {kind: [] for kind in KINDS}
    for _ in range(bench.rounds):
        for kind, (command, size) in KINDS.items():
            one = {}
            for way in RANDOM.sample(list(ways(command)), 3):
                argv, given = ways(command)[way]
                one[way] = block(sprites, control, argv, given, size, LONGER if size > 1 << 20 else BLOCK)
            rounds[kind].append(one)
    control.close()
    return rounds


# -- through the gateway

class Caller:
    def __init__(self, gateway, token):
        self.gateway = gateway
        self.connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def run(self, command, size):
        self.wait_hot()
        body = json.dumps({"command": command, "max_output_bytes": 8 << 20})
        began = time.perf_counter()
        self.connection.request("POST", "/-/agent/exec", body, self.headers)
        response = self.connection.getresponse()
        text = response.read()
        ms = (time.perf_counter() - began) * 1000
        answer = json.loads(text)
        if response.status != 200 or answer["stdout_bytes"] != size or answer["sandbox"]["tier"] != "hot":
            raise NotMeasured(f"{command}: {response.status} {text[:300]}")
        return {"ms": ms, "check": answer["output_check"]}

    def wait_hot(self):
        """Until its pool is full, so that making Sprites takes no part."""
        end = time.monotonic() + READY_SECONDS
        while f'state="hot"}} {POOL["pool_hot"]}\n' not in metrics(self.gateway.admin):
            if time.monotonic() > end:
                raise NotMeasured(f"the pool was not full within {READY_SECONDS} s")
            time.sleep(0.02)
        time.sleep(RANDOM.uniform(*PAUSE))


def through(bench, programs, base):
    token = servers.token(base.redis.port, "--rate", "100000/1m", "--burst", "1000", "--conc", "10", "--max-out", "8MiB")["token"]
    callers = {way: Caller(servers.gateway(programs, f"gateway-{way.replace(' ', '-')}", base, exec_verify_bytes=size, **POOL), token)
               for way, size in (("record", "256KiB"), ("no record", 0))}
    pairs = {kind: [] for kind in KINDS}
    for index in range(-1, bench.pairs // 10):
        for kind, (command, size) in KINDS.items():
            pair = {way: callers[way].run(command, size) for way in RANDOM.sample(list(callers), 2)}
            if index >= 0:
                pairs[kind].append(pair)
    return pairs


def measure(bench):
    with Programs(bench.folder) as programs:
        sprites = servers.emulator(programs, "--create-delay", "0ms")
        base = type(bench.base)(bench.base.redis, sprites)
        return {"sprite": in_sprite(bench, sprites), "gateway": through(bench, programs, base)}


# -- the tables

def series(rounds, way, figure="ms"):
    return [each[way][figure] for each in rounds]


def difference(rounds, one, other, figure="ms"):
    """Median of the paired differences, with its quarters."""
    values = [each[one][figure] - each[other][figure] for each in rounds]
    return f"{percentile(values, 50):+.2f} [{percentile(values, 25):+.2f} – {percentile(values, 75):+.2f}]"


def show(result):
    rows = []
    for kind, rounds in result["sprite"].items():
        rows.append([kind, *(number(percentile(series(rounds, way), 50)) for way in ("bare", "shim", "shim, record")),
                     difference(rounds, "shim, record", "shim"), difference(rounds, "shim, record", "shim", "cpu_ms"),
                     ratio([each["shim, record"] for each in rounds], [each["bare"] for each in rounds], "ms")])
    text = "one control socket, no gateway:\n" + table(
        ["ms", "bare", "shim", "shim, record", "the record", "CPU of the record", "record / bare"], rows)
    rows = []
    for kind, pairs in result["gateway"].items():
        checks = ", ".join(sorted({pair["record"]["check"] for pair in pairs}))
        rows.append([kind, *(number(percentile(series(pairs, way), 50)) for way in ("no record", "record")),
                     difference(pairs, "record", "no record"),
                     ratio([pair["record"] for pair in pairs], [pair["no record"] for pair in pairs], "ms"), checks])
    return text + "\n\nthrough the gateway, hot:\n" + table(
        ["ms", "no record", "record", "difference", "record / no record", "output_check"], rows)
