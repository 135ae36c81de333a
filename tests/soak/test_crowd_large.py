"""Ten thousand idle connections and five hundred slow readers: normal traffic stays normal, and memory is bounded."""
import concurrent.futures
import contextlib
import resource
import statistics
import threading
import time

import pytest

from rig import LARGER, until
from wire import Wire

IDLE, SLOW = 10_000, 500
IDLE_KIB, SLOW_KIB = 40, 160 + 256      # each at most; the second is what CONFIG.md says, without a body
DESCRIPTORS = 20_000
KIB = 1024
BODY = b"x" * 2048
LARGE = b"y" * (2 * 1024 * KIB)     # more than the gateway and the kernel keep of it

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True)
def descriptors():
    """As many as there are at least, for the gateway that is started and for its clients here."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert before[1] >= DESCRIPTORS, f"{before[1]} descriptors may be open"
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def normal(port):
    """Median seconds of a request."""
    times = []
    with Wire(port) as wire:
        for _ in range(300):
            began = time.monotonic()
            wire.ask("GET", "/plain")
            assert wire.answer().body == BODY
            times.append(time.monotonic() - began)
    return statistics.median(times)


def stays_normal(gateway, alone):
    """At most three times as long as alone; since a loaded machine only adds, a few tries are allowed."""
    tried = []
    for _ in range(5):
        tried.append(normal(gateway.port))
        if tried[-1] <= 3 * alone + 0.001:
            return
    raise AssertionError(f"a request takes {[round(one * 1000, 2) for one in tried]} ms, alone {alone * 1000:.2f} ms")


@pytest.fixture
def gateway(rig):
    upstream = rig.upstream()
    upstream.routes["/large"] = lambda exchange: exchange.reply(body=LARGE)
    upstream.routes[None] = lambda exchange: exchange.reply(body=BODY)
    return rig.gateway(datasette_url=upstream.url, workers=1, client_idle_seconds=600, client_memory_bytes="4GiB", token=False)


@contextlib.contextmanager
def idle(port):
    """Connections that have had an answer and ask nothing more. In the end they still work."""
    with contextlib.ExitStack() as stack:
        wires = []
        for _ in range(IDLE):
            wires.append(stack.enter_context(Wire(port)))
            wires[-1].ask("GET", "/plain")
            assert wires[-1].answer().body == BODY
        yield
        for wire in wires[::97]:
            wire.ask("GET", "/plain")
            assert wire.answer().body == BODY, "they still work"


def sip_all(wires, over):
    while not over.wait(0.5):
        for wire in wires:
            assert wire.socket.recv(2048), "it was closed"


@contextlib.contextmanager
def slow(port):
    """Connections on which a large answer is taken at 4 KiB/s."""
    over = threading.Event()
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(1) as threads:
        wires = [stack.enter_context(Wire(port, receive_buffer=8192)).ask("GET", "/large") for _ in range(SLOW)]
        for wire in wires:
            assert wire.head().status == 200
        reader = threads.submit(sip_all, wires, over)
        try:
            yield
        finally:
            over.set()
        reader.result()


def each_kib(gateway, before, count):
    return (gateway.rss() - before) / count / KIB


def connected(gateway, count):
    until(lambda: gateway.metrics().get("spritegate_connections") >= count, f"{count} are open")


def test_ten_thousand_idle_connections(gateway):
    alone, before = normal(gateway.port), gateway.rss()
    with idle(gateway.port):
        connected(gateway, IDLE)
        each = each_kib(gateway, before, IDLE)
        stays_normal(gateway, alone)
    print(f"{each:.1f} KiB for each idle connection")
    assert each <= IDLE_KIB * LARGER


def test_five_hundred_slow_readers(gateway):
    alone, before = normal(gateway.port), gateway.rss()
    with slow(gateway.port):
        stays_normal(gateway, alone)
        each = each_kib(gateway, before, SLOW)
    print(f"{each:.1f} KiB for each slow reader")
    assert each <= SLOW_KIB * LARGER


def test_both_at_once(gateway):
    alone, before = normal(gateway.port), gateway.rss()
    with idle(gateway.port), slow(gateway.port):
        connected(gateway, IDLE + SLOW)
        for _ in range(20):
            stays_normal(gateway, alone)
        used = each_kib(gateway, before, 1)
    print(f"{used / KIB:.0f} MiB for both")
    assert used <= (IDLE * IDLE_KIB + SLOW * SLOW_KIB) * LARGER
    assert gateway.metrics().get("spritegate_connections_crowded_total") == 0, "nobody had to make room"
