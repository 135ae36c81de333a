"""Many clients come and go over few workers: every answer is whole and belongs to its request."""
import asyncio
import collections
import contextlib
import os
import random
import socket
import time

import pytest

from wire import Wire

SECONDS = 8
CLIENTS = 40


async def echo(reader, writer):
    """An upstream that answers each request with its own target, a moment later."""
    try:
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            await asyncio.sleep(random.random() * 0.02)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), target))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def ask(reader, writer):
    """One request on an open connection: what was wrong with its answer, or "right"."""
    target = b"/" + os.urandom(8).hex().encode()
    writer.write(b"GET %s HTTP/1.1\r\nHost: churn\r\n\r\n" % target)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    body = await reader.readexactly(length)
    if not head.startswith(b"HTTP/1.1 200 "):
        return f"status {head.split()[1].decode()}"
    return "right" if body == target else "another request's answer"


async def visit(port, until, seen):
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for _ in range(random.randint(1, 40)):
                seen[await ask(reader, writer)] += 1
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, ConnectionError) as reason:
            seen[repr(reason)] += 1
        finally:
            writer.close()
        await asyncio.sleep(random.random() * 0.3)


def test_no_answer_is_lost_or_mixed_up(rig):
    seen = collections.Counter()

    async def churn():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        upstream = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gateway = await asyncio.to_thread(rig.gateway, datasette_url=upstream, pool_hot=0, token=False)
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(visit(gateway.port, until, seen) for _ in range(CLIENTS)))
        server.close()

    asyncio.run(churn())
    assert set(seen) == {"right"} and seen["right"] > 1000, dict(seen)


@pytest.mark.parametrize("last", ["GET /-/gateway/health HTTP/1.1\r\nHost: a\r\n\r\n", "GET /pa"], ids=["a request", "a part of one"])
def test_the_end_of_a_connection_comes_with_bytes(rig, last):
    """Both are there before either is looked at, and nothing of what follows would tell of the end once more."""
    gateway = rig.gateway(workers=1, client_idle_seconds=3600, token=False)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(5)]
        for wire in wires:
            assert wire.ask("GET", "/-/gateway/health").answer().status == 200
        with gateway.frozen():
            for wire in wires:
                wire.send(last).socket.shutdown(socket.SHUT_WR)
        for wire in wires:
            if last.endswith("\r\n\r\n"):
                assert wire.answer().status == 200
            assert wire.closed(60), "the gateway does not close it"
