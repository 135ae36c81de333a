"""What the gateway adds to a command: POST /-/agent/exec against the same command on a control socket of the same emulator that is open
already, started and recorded by the same shim in a Sprite as fresh as the gateway's, so that only the gateway is the difference. Both begin
when the pool is full and the emulator at rest: on the service a creation takes none of the gateway's CPUs."""
import dataclasses
import http.client
import json
import random
import re
import socket
import time

import pieces
import servers
from control_socket import RECORD, REPORT_BYTES, ControlSocket, launch
from figures import bar_table, missed_bars, number, percentile, percentile_difference, table
from processes import NotMeasured, Programs

COMMAND = "echo hello"
OUTPUT = "hello\n"
POOL = {"pool_hot": 3, "pool_max": 12}
EMULATOR = ("--create-delay", "20ms", "--wake-delay", "20ms")    # nothing of them is measured
WARM_UPS = 5
LEAST_HOT = 50
READY_SECONDS = 40
REST_SECONDS = 0.05         # after everything was seen to be done
PERCENTILES = (50, 95, 99)
ADDED_MS = {50: 0.5, 99: 3}     # to a command that found a hot Sprite


class Caller:
    """One keep-alive connection to the gateway. A request leaves in one write, and its clock stops at the last byte of the answer."""

    def __init__(self, port, token):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fields = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        self.body = json.dumps({"command": COMMAND})

    def request(self, method, path, body=None):
        """Seconds, status and body."""
        content = "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        message = f"{method} {path} HTTP/1.1\r\n{self.fields}{content}\r\n{body or ''}".encode()
        began = time.perf_counter()
        self.socket.sendall(message)
        head, rest = b"", b""
        while not rest:
            head += self.receive()
            head, rest, body = head.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\ncontent-length: (\d+)", head)
        if not length:
            raise NotMeasured(f"{method} {path}: an answer without Content-Length: {head[:500]}")
        while len(body) < int(length[1]):
            body += self.receive()
        seconds = time.perf_counter() - began
        return seconds, int(head.split(b" ", 2)[1]), json.loads(body)

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise NotMeasured("the gateway closed the connection")
        return data

    def run(self):
        seconds, status, answer = self.request("POST", "/-/agent/exec", self.body)
        if status != 200 or answer["stdout"] != OUTPUT or answer["output_check"] != "counted":
            raise NotMeasured(f"exec: {status} {json.dumps(answer)[:500]}")
        return {"ms": seconds * 1000, "tier": answer["sandbox"]["tier"], "timing_ms": answer["timing_ms"]}


def run_bare(control, argv):
    began = time.perf_counter()
    code, output = control.run(argv, RECORD)
    seconds = time.perf_counter() - began
    control.settle()
    if code or not output.startswith(OUTPUT.encode()) or len(output) != len(OUTPUT) + REPORT_BYTES:
        raise NotMeasured(f"bare exec: exit {code}, {output!r}")
    return {"ms": seconds * 1000}


def wait_rest(gateway, sprites, others=0):
    """Until the pool is full, and nothing but it and `others` is left in the emulator."""
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        members = dict(re.findall(r'^spritegate_pool_members\{[^}]*state="(\w+)"[^}]*\} (\d+)', metrics(gateway.admin), re.MULTILINE))
        if int(members.pop("hot")) == POOL["pool_hot"] and not any(map(int, members.values())) and \
                len(state(sprites)) == POOL["pool_hot"] + others:
            time.sleep(REST_SECONDS)
            return
        time.sleep(0.02)
    raise NotMeasured(f"exec: the pool was not full within {READY_SECONDS} s")


def state(sprites):
    connection = http.client.HTTPConnection("127.0.0.1", sprites.port, timeout=5)
    connection.request("GET", "/_emulator/state")
    found = json.loads(connection.getresponse().read())["sprites"]
    connection.close()
    return found


def metrics(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


class Bare:
    """A new Sprite for each command, prepared as the gateway prepares its own."""

    def __init__(self, sprites, prefix):
        self.port = sprites.port
        self.prefix = prefix
        self.count = 0
        self.argv = launch(COMMAND)

    def prepare(self):
        self.count += 1
        control = ControlSocket(self.port, servers.SPRITES_TOKEN, f"{self.prefix}-{self.count}")
        control.bring_shim()
        return control

    def end(self, control):
        control.close()
        control.destroy()


def measure(bench):
    with Programs(bench.folder) as programs:
        sprites = servers.emulator(programs, *EMULATOR)
        gateway = servers.gateway(programs, "gateway-exec", dataclasses.replace(bench.base, sprites=sprites), **POOL)
        token = servers.token(bench.base.redis.port, "--rate", "100000/1m", "--burst", "1000", "--conc", "10")["token"]
        caller, bare = Caller(gateway.port, token), Bare(sprites, f"bare-{gateway.port}")
        pairs = [one_pair(gateway, sprites, caller, bare) for _ in range(-WARM_UPS, bench.pairs)][WARM_UPS:]
        floor = [caller.request("GET", "/-/gateway/health")[0] * 1000 for _ in range(200)]
        output = pieces.measure(gateway, sprites, token, bare, wait_rest)
    hot = [pair for pair in pairs if pair["gateway"]["tier"] == "hot"]
    if len(hot) < min(LEAST_HOT, bench.pairs):
        raise NotMeasured(f"exec: only {len(hot)} of {len(pairs)} commands found a hot Sprite")
    return {"pool": POOL, "pairs": pairs, "output_ms": output, "health_ms": floor}


RANDOM = random.Random(1)


def one_pair(gateway, sprites, caller, bare):
    """Once through the gateway and twice bare, in an order by chance: what two bare ones differ by is the machine's."""
    pair = {}
    for who in RANDOM.sample(("gateway", "bare", "again"), 3):
        if who == "gateway":
            wait_rest(gateway, sprites)
            pair[who] = caller.run()
        else:
            wait_rest(gateway, sprites)
            control = bare.prepare()
            wait_rest(gateway, sprites, 1)
            pair[who] = run_bare(control, bare.argv)
            bare.end(control)
    return pair


def hot_pairs(result):
    """All, through the gateway, bare, and bare again."""
    hot = [pair for pair in result["pairs"] if pair["gateway"]["tier"] == "hot"]
    return hot, *([pair[who]["ms"] for pair in hot] for who in ("gateway", "bare", "again"))


def bars(result):
    """(what, figure, reached); None: nothing is demanded. The percentiles of two series are compared: those of the paired differences hold how
    much each command varies by itself, twice."""
    _, through, bare, again = hot_pairs(result)
    for percent, most in ADDED_MS.items():
        added = percentile_difference(through, bare, percent)
        yield f"a hot command: p{percent} at most {most} ms above the bare one's", ranged(added), added[0] <= most
        yield "… the same of a bare one and another bare one", ranged(percentile_difference(again, bare, percent)), None
        for who, series in (("the gateway's", through), ("another bare one's", again)):
            paired = [one - other for one, other in zip(series, bare)]
            yield f"… p{percent} of the paired differences, {who}", f"{signed(percentile(paired, percent))} ms", None
    yield from pieces.bars(result["output_ms"])


def missed(result):
    return missed_bars(bars(result))


def show(result):
    pairs = result["pairs"]
    hot, through, bare, again = hot_pairs(result)
    series = {
        "through the gateway": through,
        "bare": bare,
        "bare again": again,
        "added (paired difference)": [pair["gateway"]["ms"] - pair["bare"]["ms"] for pair in hot],
        **{f"gateway's own: {part}": [pair["gateway"]["timing_ms"][part] for pair in hot] for part in ("admit", "claim", "exec")},
        **pieces.series(result["output_ms"]),
        "GET /-/gateway/health": result["health_ms"]}
    rows = [[name, *(signed(percentile(values, percent)) for percent in PERCENTILES)] for name, values in series.items()]
    rows.insert(4, ["added (difference of the percentiles)",
                    *(signed(percentile(through, percent) - percentile(bare, percent)) for percent in PERCENTILES)])
    ratios = [pair["gateway"]["ms"] / pair["bare"]["ms"] for pair in hot]
    rows.append(["gateway / bare", *(f"{percentile(ratios, percent):.2f}" for percent in PERCENTILES)])
    pool = ", ".join(f"{name} {value}" for name, value in result["pool"].items())
    return (table(["ms", *(f"p{percent}" for percent in PERCENTILES)], rows) + "\n\n" + bar_table(bars(result)) +
            f"\n\n{len(pairs)} pairs of `{COMMAND}`, {len(hot) / len(pairs):.0%} of them hot ({pool}); the figures are of the hot ones")


def ranged(figures):
    return "{} [{}–{}] ms".format(*map(signed, figures))


def signed(value):
    return number(value) if value >= 0 else "-" + number(-value)
