"""How long a client is waited for that does not go on: a place in its connection for each limit of docs/ARCHITECTURE.md."""
import concurrent.futures
import time

import pytest

from wire import Wire

IDLE = 20       # CLIENT_IDLE_SECONDS
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
MIB = 1 << 20   # so much that the least rate is kept for a quarter of an hour

# sent, on a connection that has had an answer unless there was nothing before -> the problem that comes before the end, the least seconds
CASES = {
    "a connection that is kept": (b"", None, IDLE),
    "half a head": (HALF_A_HEAD, "request-timeout", 10),
    "half a head with nothing before": (HALF_A_HEAD, "request-timeout", 10),
    "a connection with nothing at all": (b"", None, 10),
    "half a body": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (2 * MIB) + bytes(MIB), "request-timeout", 30),
}


def end_of(port, data, used):
    """What comes when nothing more is sent, and how long that takes."""
    began = time.monotonic()
    with Wire(port, limit=300) as wire:
        if used:
            wire.ask("GET", "/")
            assert wire.answer().status == 200
        wire.send(data)
        said = wire.everything(300)
        return said, time.monotonic() - began


@pytest.fixture(scope="module")
def ends(shared_rig):
    """All at once, because most of it is waiting."""
    upstream = shared_rig.upstream()
    upstream.routes["/"] = lambda exchange: exchange.reply(body=exchange.read() and b"whole")
    gateway = shared_rig.gateway(datasette_url=upstream.url, workers=1, client_idle_seconds=IDLE, token=False)
    with concurrent.futures.ThreadPoolExecutor(len(CASES)) as threads:
        yield {name: threads.submit(end_of, gateway.port, data, "nothing" not in name) for name, (data, _, _) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_it_ends(ends, name):
    _, code, least = CASES[name]
    said, seconds = ends[name].result()
    assert seconds >= least, f"after {seconds} s"
    assert seconds < 290, "it was this test that closed"
    if code is None:
        assert said == b"", said
        return
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and b"\r\nConnection: close" in head and code.encode() in body, said
