"""Clients that vanish: nothing of theirs comes any more, no end and no reset, as after a lost network or a machine that was cut off."""
import contextlib
import pathlib
import threading
import time

import pytest

from nasty import PIECE, Closed
from rig import until
from test_websocket import grant, opened
from wire import Wire, exec_request

IDLE, LATEST = 1, 4     # seconds: of a client's connection, and when one that vanished is given up


@pytest.fixture(scope="module")
def upstream(shared_rig):
    return shared_rig.upstream()


@pytest.fixture(scope="module")
def gateway(shared_rig, upstream):
    return shared_rig.gateway(datasette_url=upstream.url, workers=1, client_idle_seconds=IDLE, max_websockets=10, websocket_idle_seconds=2 * LATEST)


class Stream:
    """An answer that falls silent after its first piece, and goes on with `after` when its client has vanished."""

    def __init__(self, gateway, upstream, path, after):
        self.after, self.go_on, self.left = after, threading.Event(), threading.Event()
        upstream.routes[path] = self.serve
        self.wire = Wire(gateway.port).ask("GET", path)
        self.pieces = self.wire.body(self.wire.head())
        assert next(self.pieces) == b"first"

    def serve(self, exchange):
        exchange.reply("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"first")
        assert self.go_on.wait(120)
        if self.after:
            exchange.chunk(self.after)
        if exchange.left_within(120) is not None:
            self.left.set()
        exchange.hang_up()


def probed(port):
    """Connections to this port on which the kernel asks whether the other side is still there."""
    lines = pathlib.Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    return sum(fields[2].endswith(f":{port:04X}") and fields[5].startswith("02:") for fields in map(str.split, lines))


def test_streams_end(gateway, upstream):
    """Whether something of them is under way or not. Datasette's silence alone could last for a quarter of an hour. Who is only slow stays:
    its kernel says that it is there."""
    streams = [Stream(gateway, upstream, f"/stream-{len(after)}", after) for after in (b"", b"x", PIECE)]
    there = Stream(gateway, upstream, "/there", b"second")
    for stream in streams:
        stream.wire.vanish()
        stream.go_on.set()
    for stream in streams:
        assert stream.left.wait(60), f"{len(stream.after)} bytes under way: the gateway has not noticed"
    until(lambda: probed(upstream.port), "Datasette could not vanish either")
    time.sleep(LATEST / 2)
    assert not there.left.is_set()
    there.go_on.set()
    assert next(there.pieces) == b"second"
    for stream in (*streams, there):
        stream.wire.close()


def test_a_whole_answer_under_way_keeps_nothing(gateway, upstream):
    go_on = threading.Event()

    @upstream.on("/whole")
    def whole(exchange):
        assert go_on.wait(60)
        exchange.reply(body=PIECE)
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/whole")
        until(lambda: upstream.asked("/whole"), "it is asked")
        before = gateway.metrics().get("spritegate_connections")
        wire.vanish()
        go_on.set()
        until(lambda: gateway.metrics().get("spritegate_connections") < before, "its connection is closed")


def test_a_command_ends(gateway):
    with Wire(gateway.port) as wire:
        wire.send(exec_request(gateway.token, b'{"command": "sleep 200", "timeout_seconds": 200}'))
        until(lambda: gateway.metrics().get("spritegate_exec_leases") == 1, "it runs")
        wire.vanish()
        until(lambda: gateway.metrics().get("spritegate_exec_leases") == 0, "it has ended")


def test_a_websocket_ends_though_datasette_speaks(gateway, upstream):
    left = threading.Event()

    @upstream.on("/speaks")
    def speaks(exchange):
        grant(exchange)
        with contextlib.suppress(Closed):
            while exchange.left_within(0.2) is None:
                exchange.send(b"still here")
        left.set()
        exchange.hang_up()
    with opened(gateway, "/speaks") as wire:
        assert wire.take(5) == b"still"
        wire.vanish()
        assert left.wait(60), "the gateway has not noticed"
