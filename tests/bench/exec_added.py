"""What the gateway adds to a command: POST /-/agent/exec against the same command on a control socket of the same emulator, started and
recorded by the same shim, so that only the gateway is the difference."""
import http.client
import json
import random
import re
import time

import servers
from control_socket import RECORD, ControlSocket, launch
from figures import number, percentile, table
from processes import NotMeasured, Programs

COMMAND = "echo hello"
OUTPUT = "hello\n"
POOL = {"pool_hot": 8, "pool_max": 24}
WARM_UPS = 5
PAUSE = (0.3, 0.7)          # seconds before each command; two of them make about one pair a second
LEAST_HOT = 50
READY_SECONDS = 40
PERCENTILES = (50, 95, 99)


class Caller:
    """One keep-alive connection to the gateway."""

    def __init__(self, port, token):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.body = json.dumps({"command": COMMAND})

    def request(self, *arguments):
        """Seconds and (status, body)."""
        began = time.perf_counter()
        self.connection.request(*arguments)
        response = self.connection.getresponse()
        body = response.read()
        return time.perf_counter() - began, response.status, json.loads(body)

    def run(self):
        seconds, status, answer = self.request("POST", "/-/agent/exec", self.body, self.headers)
        if status != 200 or answer["stdout"] != OUTPUT:
            raise NotMeasured(f"exec: {status} {json.dumps(answer)[:500]}")
        return {"ms": seconds * 1000, "tier": answer["sandbox"]["tier"], "timing_ms": answer["timing_ms"]}


def run_bare(control, argv):
    began = time.perf_counter()
    code, output = control.run(argv, RECORD)
    seconds = time.perf_counter() - began
    control.settle()
    if code or not output.startswith(OUTPUT.encode()):
        raise NotMeasured(f"bare exec: exit {code}, {output!r}")
    return {"ms": seconds * 1000}


def wait_hot(gateway):
    """Until the pool is full."""
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        text = metrics(gateway.admin)
        hot = re.search(r'^spritegate_pool_members\{[^}]*state="hot"[^}]*\} (\d+)', text, re.MULTILINE)
        if hot and int(hot[1]) >= POOL["pool_hot"]:
            return
        time.sleep(0.2)
    raise NotMeasured(f"exec: the pool was not full within {READY_SECONDS} s")


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def measure(bench):
    with Programs(bench.folder) as programs:
        gateway = servers.gateway(programs, "gateway-exec", bench.base, **POOL)
        token = servers.token(bench.base.redis.port, "--rate", "100000/1m", "--burst", "1000", "--conc", "10")["token"]
        caller, argv = Caller(gateway.port, token), launch(COMMAND)
        control = ControlSocket(bench.base.sprites.port, servers.SPRITES_TOKEN, f"bare-{gateway.port}")
        control.bring_shim()
        wait_hot(gateway)
        pairs = [one_pair(caller, control, argv, index) for index in range(-WARM_UPS, bench.pairs)][WARM_UPS:]
        floor = [caller.request("GET", "/-/gateway/health")[0] * 1000 for _ in range(200)]
        control.close()
    hot = [pair for pair in pairs if pair["gateway"]["tier"] == "hot"]
    if len(hot) < min(LEAST_HOT, bench.pairs):
        raise NotMeasured(f"exec: only {len(hot)} of {len(pairs)} commands found a hot Sprite")
    return {"pool": POOL, "pairs": pairs, "health_ms": floor}


RANDOM = random.Random(1)


def one_pair(caller, control, argv, index):
    """In turns the gateway and the bare command first. The pauses differ, so that what follows a command (destroying its
    Sprite, making another) falls on both alike."""
    pair = {}
    for who in ("gateway", "bare") if index % 2 else ("bare", "gateway"):
        time.sleep(RANDOM.uniform(*PAUSE))
        pair[who] = caller.run() if who == "gateway" else run_bare(control, argv)
    return pair


def show(result):
    pairs = result["pairs"]
    hot = [pair for pair in pairs if pair["gateway"]["tier"] == "hot"]
    series = {
        "through the gateway": [pair["gateway"]["ms"] for pair in hot],
        "bare": [pair["bare"]["ms"] for pair in hot],
        "added (paired difference)": [pair["gateway"]["ms"] - pair["bare"]["ms"] for pair in hot],
        "gateway's own: admit": [pair["gateway"]["timing_ms"]["admit"] for pair in hot],
        "gateway's own: claim": [pair["gateway"]["timing_ms"]["claim"] for pair in hot],
        "gateway's own: exec": [pair["gateway"]["timing_ms"]["exec"] for pair in hot],
        "GET /-/gateway/health": result["health_ms"]}
    rows = [[name, *(signed(percentile(values, percent)) for percent in PERCENTILES)] for name, values in series.items()]
    ratios = [pair["gateway"]["ms"] / pair["bare"]["ms"] for pair in hot]
    rows.append(["gateway / bare", *(f"{percentile(ratios, percent):.2f}" for percent in PERCENTILES)])
    pool = ", ".join(f"{name} {value}" for name, value in result["pool"].items())
    return (table(["ms", *(f"p{percent}" for percent in PERCENTILES)], rows) +
            f"\n\n{len(pairs)} pairs of `{COMMAND}`, {len(hot) / len(pairs):.0%} of them hot ({pool}); the figures are of the hot ones")


def signed(value):
    return number(value) if value >= 0 else "-" + number(-value)
