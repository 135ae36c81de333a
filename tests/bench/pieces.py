"""How long output takes to the caller of a streamed command, and the first piece of it apart from the rest.

It leaves the Sprite when the emulator's socket sends it: that is seen from outside, as packets on the loopback device with the kernel's own times.
Beside that, from when the command wrote it, in which the shim and the emulator have their parts. Bare is the same on a control socket that is open."""
import ctypes
import http.client
import json
import random
import re
import socket
import struct
import time

from control_socket import RECORD, launch
from figures import number, percentile
from processes import NotMeasured

# Say what time it is; the clock is the same in the emulator's Sprites.
LINES = 200
CLOCK = f"""python3 -c 'import os, time
for _ in range({LINES}):
    os.write(1, b"%d\\n" % time.time_ns())
    time.sleep(0.01)'"""
CLOCKS = 3
ONE = "exec date +%s%N"
ONES = 60
BAR_MS = 5              # p95
LINE = re.compile(rb"(?<!\d)\d{19}(?=\n)")
ETH_P_IP, SO_TIMESTAMPNS, SO_RCVBUFFORCE, SO_ATTACH_FILTER = 0x0800, 35, 33, 26
QUEUE_BYTES = 64 << 20
WHO = ("gateway", "bare")
RANDOM = random.Random(2)


def from_port(port):
    """A filter of the kernel for IPv4 packets (linux/filter.h): what others send at the same time does not fill the queue."""
    return ((0x30, 0, 0, 9), (0x15, 0, 4, socket.IPPROTO_TCP),      # the protocol
            (0xb1, 0, 0, 0), (0x48, 0, 0, 0), (0x15, 0, 1, port),   # behind the IP header: the source port
            (0x06, 0, 0, 1 << 18), (0x06, 0, 0, 0))


class Departures:
    """When each line left the program on this port. Nothing is read while something is timed."""

    def __init__(self, port):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        instructions = b"".join(struct.pack("HBBI", *one) for one in from_port(port))
        program = ctypes.create_string_buffer(instructions, len(instructions))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(instructions) // 8, ctypes.addressof(program)))
        self.socket.bind(("lo", ETH_P_IP))
        self.socket.setblocking(False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def take(self):
        """{line: ns} of what came since."""
        left = {}
        while True:
            try:
                packet, control, _, _ = self.socket.recvmsg(1 << 17, 128)
            except BlockingIOError:
                return left
            seconds, ns = struct.unpack("ll", next(data for _, kind, data in control if kind == SO_TIMESTAMPNS))
            for line in LINE.findall(packet):
                left.setdefault(line, seconds * 10**9 + ns)


def streamed(gateway, token, command):
    """(ns, bytes) of each piece."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    connection.request("POST", "/-/agent/exec", json.dumps({"command": command}),
                       {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/x-ndjson"})
    found = []
    for line in connection.getresponse():
        now, event = time.time_ns(), json.loads(line)
        if event["type"] == "stdout":
            found.append((now, event["data"].encode()))
    connection.close()
    return found


def bare(control, command):
    found = []
    control.run(launch(command), RECORD, lambda piece: found.append((time.time_ns(), piece)))
    control.settle()
    return found


def taken(pieces, left, count):
    """What each line took, in ms."""
    found = []
    for now, piece in pieces:
        for line in LINE.findall(piece):
            if line not in left:
                raise NotMeasured("exec: output that was not seen to leave the Sprite")
            found.append({"left": (now - left[line]) / 1e6, "written": (now - int(line)) / 1e6})
    if len(found) != count:
        raise NotMeasured(f"exec: {len(found)} lines of output, not {count}")
    return found


def measure(gateway, sprites, token, prepared, wait_rest):
    """Of each of WHO: what first pieces took, and all."""
    found = {who: {"first": [], "all": []} for who in WHO}
    with Departures(sprites.port) as departures:
        for command, count in [(ONE, 1)] * ONES + [(CLOCK, LINES)] * CLOCKS:
            for who in RANDOM.sample(WHO, 2):
                wait_rest(gateway, sprites)
                control = None
                if who == "bare":
                    control = prepared.prepare()
                    wait_rest(gateway, sprites, 1)
                departures.take()
                pieces = bare(control, command) if control else streamed(gateway, token, command)
                lines = taken(pieces, departures.take(), count)
                found[who]["first"].append(lines[0])
                found[who]["all"] += lines
                if control:
                    prepared.end(control)
    return found


def series(found):
    """{what: ms}"""
    names = {"left": "from leaving the Sprite to the caller", "written": "from its write to the caller"}
    whose = {"gateway": "", "bare": ", bare"}
    return {f"{part} {names[start]}{whose[who]}": [line[start] for line in found[who][kind]]
            for kind, part in (("first", "first piece"), ("all", "all output")) for start in names for who in WHO}


def bars(found):
    for kind, part in (("first", "the first piece"), ("all", "all output")):
        ours, theirs = (percentile([line["left"] for line in found[who][kind]], 95) for who in WHO)
        yield f"{part}, from leaving the Sprite to the caller: p95 at most {BAR_MS} ms", f"{number(ours)} ms", ours <= BAR_MS
        yield "… of the bare socket", f"{number(theirs)} ms", None
