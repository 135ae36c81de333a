"""WebSocket to Datasette: who is let through, that every byte arrives as it was sent, and that it ends when it should."""
import asyncio
import base64
import contextlib
import hashlib
import signal
import socket
import threading
import time

import aiohttp
import pytest
from aiohttp import web

from rig import BINARY, LARGER, free_port, until
from wire import CutOff, Wire

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ASKED = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
BLOCK = bytes(range(256)) * 4096    # 1 MiB


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


def grant(exchange, *fields, after=b""):
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
             f"Sec-WebSocket-Accept: {accept_of(exchange['Sec-WebSocket-Key'])}", *fields]
    exchange.send(("\r\n".join(lines) + "\r\n\r\n").encode() + after)
    return exchange.wire


def pieces(wire):
    """What comes until the other side ends."""
    if wire.buffer:
        piece, wire.buffer = wire.buffer, b""
        yield piece
    while piece := wire.receive():
        yield piece


def echo(exchange):
    wire = grant(exchange)
    for piece in pieces(wire):
        exchange.send(piece)
    exchange.hang_up()


@pytest.fixture(scope="module")
def upstream(shared_rig):
    upstream = shared_rig.upstream()
    upstream.routes["/echo"] = echo
    return upstream


@pytest.fixture(scope="module")
def gateway(shared_rig, upstream):
    return shared_rig.gateway(datasette_url=upstream.url, workers=1, max_websockets=100, token=False)


def asked(gateway, path="/echo", *fields):
    wire = Wire(gateway.port)
    return wire.ask("GET", path, *ASKED, *fields)


@contextlib.contextmanager
def opened(gateway, path="/echo", *fields):
    with asked(gateway, path, *fields) as wire:
        answer = wire.head()
        assert answer.status == 101, answer.raw
        wire.granted = answer
        yield wire


def until_closed(gateway):
    until(lambda: gateway.metrics().get("spritegate_websockets") == 0, "no WebSocket is open")


def ends(gateway, reason):
    return gateway.metrics().get("spritegate_websocket_ends_total", reason=reason)


def until_ended(gateway, reason, count):
    until(lambda: ends(gateway, reason) == count, lambda: f"{count} have ended by {reason}; there are {ends(gateway, reason)}")


# -- the way there ------------------------------------------------------------------------


def test_both_sides_are_asked_and_told_the_same(gateway, upstream):
    @upstream.on("/fields")
    def fields(exchange):
        wire = grant(exchange, "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Extensions: permessage-deflate", "Set-Cookie: a=1",
                     "Set-Cookie: b=2", "Keep-Alive: timeout=5", "fly-replay: app=x", after=b"first")
        assert wire.take(4) == b"ping"
        exchange.send(b"pong")
        exchange.hang_up()
    with opened(gateway, "/fields?a=%20b", "Sec-WebSocket-Protocol: chat, superchat", "Origin: http://gateway.test", "Cookie: c=3",
                "TE: trailers", "Authorization: Bearer sgt_x") as wire:
        assert wire.take(5) == b"first"
        assert wire.send(b"ping").take(4) == b"pong"
        assert wire.closed(60)
    answer, exchange = wire.granted, upstream.asked("/fields")[-1]
    assert answer["Connection"] == "Upgrade" and answer["Upgrade"] == "websocket"
    assert answer["Sec-WebSocket-Accept"] == accept_of(KEY) and answer["Sec-WebSocket-Protocol"] == "chat"
    assert answer["Sec-WebSocket-Extensions"] == "permessage-deflate" and answer.all("Set-Cookie") == ["a=1", "b=2"]
    assert answer["X-Request-Id"] == exchange["X-Request-Id"]
    for name in ("Keep-Alive", "fly-replay", "Content-Length", "Transfer-Encoding"):
        assert answer[name] is None, answer.raw
    assert exchange.target == "/fields?a=%20b" and exchange["Host"] == "gateway.test" and exchange["Origin"] == "http://gateway.test"
    assert exchange["Connection"] == "Upgrade" and exchange["Upgrade"] == "websocket" and exchange["Sec-WebSocket-Key"] == KEY
    assert exchange["Via"] == "1.1 spritegate" and exchange["Cookie"] == "c=3" and exchange["X-Forwarded-For"] == "127.0.0.1"
    assert exchange["Sec-WebSocket-Protocol"] == "chat, superchat" and exchange["TE"] is None


def test_bytes_sent_ahead_wait_for_the_101(gateway, upstream):
    @upstream.on("/ahead")
    def ahead(exchange):
        assert exchange.wire.silent(0.5), "nothing is passed on before the 101"
        echo(exchange)
    sent = BLOCK[:20000]
    with Wire(gateway.port) as wire:
        wire.send(b"GET /ahead HTTP/1.1\r\nHost: a\r\n" + "\r\n".join(ASKED).encode() + b"\r\n\r\n" + sent)
        assert wire.head().status == 101
        assert wire.take(len(sent)) == sent


@pytest.mark.parametrize("status", ["426 Upgrade Required", "404 Not Found", "200 OK", "401 Unauthorized"])
def test_who_is_refused_gets_an_ordinary_answer(gateway, upstream, status):
    upstream.routes["/refused"] = lambda exchange: exchange.reply(status, "Sec-WebSocket-Version: 13", body=b"no")
    with Wire(gateway.port) as wire:
        # What comes ahead is the next request then, not part of anything.
        wire.send(b"GET /refused HTTP/1.1\r\nHost: a\r\n" + "\r\n".join(ASKED).encode() + b"\r\n\r\nGET /refused HTTP/1.1\r\nHost: a\r\n\r\n")
        first, second = wire.answer(), wire.answer()
        assert first.status == second.status == int(status[:3]) and first.body == second.body == b"no"
        assert first["Connection"] is None and first["Sec-WebSocket-Version"] == "13"
    assert upstream.asked("/refused")[-2]["Upgrade"] == "websocket" and upstream.asked("/refused")[-1]["Upgrade"] is None


ORDINARY = {
    "another protocol": ("GET", ["Connection: Upgrade", "Upgrade: h2c", f"Sec-WebSocket-Key: {KEY}"]),
    "two protocols": ("GET", ["Connection: Upgrade", "Upgrade: websocket, h2c", f"Sec-WebSocket-Key: {KEY}"]),
    "not named in Connection": ("GET", ["Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}"]),
    "no key": ("GET", ["Connection: Upgrade", "Upgrade: websocket"]),
    "a key that is none": ("GET", ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"]),
    "POST": ("POST", list(ASKED)),
    "a body": ("GET", [*ASKED, "Content-Length: 3"]),
    "a chunked body": ("GET", [*ASKED, "Transfer-Encoding: chunked"]),
}


@pytest.mark.parametrize("what", ORDINARY)
def test_other_requests_stay_what_they_are(gateway, upstream, what):
    """Upgrade may be ignored (RFC 9110 section 7.8); nothing of it reaches Datasette."""
    method, fields = ORDINARY[what]
    upstream.routes["/ordinary"] = lambda exchange: exchange.reply(body=b"page")
    body = {"a body": b"abc", "a chunked body": b"3\r\nabc\r\n0\r\n\r\n"}.get(what, b"")
    with Wire(gateway.port) as wire:
        wire.ask(method, "/ordinary", *fields, body=body, length=False)
        answer = wire.answer()
        assert answer.status == 200 and answer.body == b"page"
    exchange = upstream.asked("/ordinary")[-1]
    assert exchange["Upgrade"] is None and exchange["Connection"] is None and exchange.read() == b""


def test_http_1_0_cannot(gateway, upstream):
    upstream.routes["/old"] = lambda exchange: exchange.reply(body=b"page")
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/old", *ASKED, version="HTTP/1.0")
        assert wire.answer().body == b"page"
    assert upstream.asked("/old")[-1]["Upgrade"] is None


WRONG = {
    "another key": ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_of('x')}"],
    "no proof": ["Upgrade: websocket", "Connection: Upgrade"],
    "another protocol": ["Upgrade: h2c", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_of(KEY)}"],
    "no protocol": ["Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_of(KEY)}"],
    "not in order": ["Upgrade: websocket", f"Sec-WebSocket-Accept: {accept_of(KEY)}"],
    "a length": ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_of(KEY)}", "Content-Length: 0"],
}


@pytest.mark.parametrize("what", WRONG)
def test_an_answer_that_switches_wrongly_is_none(gateway, upstream, what):
    def switch(exchange):
        exchange.send("HTTP/1.1 101 Switching Protocols\r\n" + "\r\n".join(WRONG[what]) + "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
        exchange.hang_up()
    upstream.routes["/wrong"] = switch
    with asked(gateway, "/wrong") as wire:
        answer = wire.answer()
        assert answer.status == 502 and answer.json()["code"] == "bad-upstream", answer.body
        wire.ask("GET", "/nothing")
        assert wire.answer().status == 404, "the client's connection is in step"


def test_a_switch_that_nobody_asked_for_is_none(gateway, upstream):
    def switch(exchange):
        exchange.send(f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept_of(KEY)}\r\n\r\n")
        exchange.hang_up()
    upstream.routes["/unasked"] = switch
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/unasked", f"Sec-WebSocket-Key: {KEY}")
        assert wire.answer().status == 502


def test_off_nothing_of_it_reaches_datasette(rig, upstream):
    gateway = rig.gateway(datasette_url=upstream.url, token=False)
    upstream.routes["/off"] = lambda exchange: exchange.reply(body=b"page")
    with asked(gateway, "/off") as wire:
        assert wire.answer().body == b"page"
    assert upstream.asked("/off")[-1]["Upgrade"] is None and upstream.asked("/off")[-1]["Connection"] is None
    with asked(gateway) as wire:
        assert wire.answer().status == 502, "a 101 is not passed on"


def test_never_for_commands(gateway):
    for path in ("/-/agent/exec", "/-/agent/exec/x"):
        with Wire(gateway.port) as wire:
            wire.ask("GET", path)
            plain = wire.answer()
            wire.ask("GET", path, *ASKED)
            assert wire.answer().status == plain.status != 101


def test_no_more_than_allowed(rig, upstream):
    gateway = rig.gateway(datasette_url=upstream.url, workers=1, max_websockets=1, token=False)
    with opened(gateway):
        with asked(gateway) as second:
            answer = second.answer()
            assert answer.status == 503 and answer["Retry-After"] == "1", answer.body

    def again():
        with asked(gateway) as wire:
            return wire.head().status == 101
    until(again, "there is a place again")


def test_an_ordinary_answer_keeps_no_place(rig, upstream):
    """However long it takes: the place is for those that become a WebSocket."""
    gateway = rig.gateway(datasette_url=upstream.url, workers=1, max_websockets=1, token=False)
    go_on = threading.Event()

    @upstream.on("/slow")
    def slow(exchange):
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl")
        assert go_on.wait(60)
        exchange.send("ow")
    with asked(gateway, "/slow") as first:
        assert first.head().status == 200
        with opened(gateway) as second:
            assert second.send(b"x").take(1) == b"x"
        go_on.set()
        assert first.take(4) == b"slow"


def test_a_101_with_too_large_a_head(gateway, upstream):
    upstream.routes["/large-head"] = lambda exchange: (grant(exchange, *[f"X-Large: {'x' * 4000}"] * 50), exchange.wire.receive())
    with asked(gateway, "/large-head") as wire:
        answer = wire.answer()
        assert answer.status == 502 and answer.json()["code"] == "answer-head-too-large", answer.body
    until_closed(gateway)


# -- the bytes ------------------------------------------------------------------------------


def pour(wire, data, times):
    for _ in range(times):
        wire.socket.sendall(data)
    wire.socket.shutdown(socket.SHUT_WR)


def digest_of(data, times):
    digest = hashlib.sha256()
    for _ in range(times):
        digest.update(data)
    return digest.hexdigest()


@pytest.mark.smoke
def test_much_both_ways_in_little_memory(gateway):
    """16 MiB there and back, by a client that reads late: the gateway holds no more than what it may."""
    with opened(gateway) as wire:
        assert wire.send(b"x").take(1) == b"x"
        before = gateway.rss()
        writer = threading.Thread(target=pour, args=(wire, BLOCK, 16))
        writer.start()
        writer.join(1)
        digest, most = hashlib.sha256(), before
        for i, piece in enumerate(pieces(wire)):
            digest.update(piece)
            if i % 64 == 0:
                most = max(most, gateway.rss())
        writer.join()
        assert digest.hexdigest() == digest_of(BLOCK, 16)
        assert most - before < 4 * LARGER << 20, f"{most - before} bytes more"
    until_closed(gateway)


def test_a_side_that_does_not_read_is_waited_for(gateway, upstream):
    read, got = threading.Event(), []

    @upstream.on("/late-reader")
    def late(exchange):
        wire = grant(exchange)
        assert read.wait(60)
        digest = hashlib.sha256()
        for piece in pieces(wire):
            digest.update(piece)
        got.append(digest.hexdigest())
        exchange.send(b"all")
        exchange.hang_up()
    with opened(gateway, "/late-reader") as wire:
        before = gateway.rss()
        writer = threading.Thread(target=pour, args=(wire, BLOCK, 16))
        writer.start()
        writer.join(1)
        assert gateway.rss() - before < 4 * LARGER << 20
        read.set()
        assert b"".join(pieces(wire)) == b"all"
        writer.join()
    assert got == [digest_of(BLOCK, 16)]


def test_one_direction_may_end_before_the_other(gateway, upstream):
    @upstream.on("/half")
    def half(exchange):
        wire = grant(exchange, after=b"hello")
        wire.socket.shutdown(socket.SHUT_WR)
        upstream.heard = b"".join(pieces(wire))
        upstream.half_done.set()
        exchange.hang_up()
    upstream.half_done = threading.Event()
    with opened(gateway, "/half") as wire:
        assert b"".join(pieces(wire)) == b"hello"
        wire.send(b"still here")
        wire.socket.shutdown(socket.SHUT_WR)
        assert upstream.half_done.wait(60)
    assert upstream.heard == b"still here"
    until_closed(gateway)


# -- how it ends ------------------------------------------------------------------------------


def test_a_client_that_leaves(gateway, upstream):
    gone = threading.Event()

    @upstream.on("/left")
    def left(exchange):
        wire = grant(exchange)
        with contextlib.suppress(CutOff):
            for _ in pieces(wire):
                pass
        gone.set()
        exchange.hang_up()
    for leave in (Wire.reset, Wire.close):
        before = ends(gateway, "client")
        gone.clear()
        with opened(gateway, "/left") as wire:
            wire.send(b"bye")
            leave(wire)
        assert gone.wait(60), "Datasette is told"
        until_closed(gateway)
        until_ended(gateway, "client", before + 1)


def test_a_client_that_resets_while_bytes_come(gateway, upstream):
    """It is the client that ended it, even when that shows itself in what is sent to it."""
    pour, poured = threading.Event(), threading.Event()

    @upstream.on("/pours")
    def pours(exchange):
        wire = grant(exchange)
        assert pour.wait(60)
        exchange.send(b"x")
        poured.set()
        with contextlib.suppress(CutOff):
            wire.receive()
        exchange.hang_up()
    until_closed(gateway)
    before = {reason: ends(gateway, reason) for reason in ("client", "datasette")}
    with opened(gateway, "/pours") as wire:
        until(lambda: gateway.metrics().get("spritegate_websockets") == 1, "it is open")
        with gateway.frozen():
            pour.set()
            assert poured.wait(60)
            wire.reset()
    until_closed(gateway)
    until_ended(gateway, "client", before["client"] + 1)
    assert ends(gateway, "datasette") == before["datasette"]


def test_a_datasette_that_leaves(gateway, upstream):
    upstream.routes["/closes"] = lambda exchange: (grant(exchange, after=b"bye"), exchange.hang_up())
    upstream.routes["/resets"] = lambda exchange: (grant(exchange), exchange.reset())
    before = ends(gateway, "datasette")
    with opened(gateway, "/closes") as wire:
        assert wire.take(3) == b"bye" and wire.closed(60)
    with asked(gateway, "/resets") as wire:
        # The 101 may be destroyed by the reset that follows it.
        with pytest.raises(CutOff):
            wire.head()
            wire.more()
    until_closed(gateway)
    until_ended(gateway, "datasette", before + 2)


def test_it_is_in_the_log_and_in_the_metrics(rig, upstream):
    gateway = rig.gateway(datasette_url=upstream.url, max_websockets=10, token=False)
    with opened(gateway) as wire:
        until(lambda: gateway.metrics().get("spritegate_websockets") == 1, "it is counted")
        assert gateway.metrics().get("spritegate_http_requests_in_flight", route="other") == 1
        assert wire.send(BLOCK[:5000]).take(5000) == BLOCK[:5000]
        request_id = wire.granted["X-Request-Id"]
    line = gateway.until_logged(lambda line: line.get("request_id") == request_id)
    assert line["status"] == 101 and line["bytes_in"] == line["bytes_out"] == 5000 and line["path"] == "/echo", line
    until_closed(gateway)
    metrics = gateway.metrics()
    assert metrics.get("spritegate_websocket_bytes_total", direction="to_client") == 5000
    assert metrics.get("spritegate_websocket_bytes_total", direction="to_datasette") == 5000
    assert metrics.get("spritegate_http_requests_total", code="101") == 1
    assert metrics.get("spritegate_http_request_duration_seconds_count", route="other") == 0, "how long it is open says nothing of how fast we are"


def test_one_that_rests_too_long(rig, upstream):
    gateway = rig.gateway(datasette_url=upstream.url, max_websockets=10, websocket_idle_seconds=1, token=False)
    with opened(gateway) as wire:
        assert wire.send(b"x").take(1) == b"x"
        assert wire.closed(60)
        request_id = wire.granted["X-Request-Id"]
    line = gateway.until_logged(lambda line: line.get("request_id") == request_id)
    assert line["code"] == "websocket_idle", line
    until_closed(gateway)
    until_ended(gateway, "idle", 1)


def test_one_that_rests_with_a_client_that_vanished(rig, upstream):
    """The orderly end comes before that of the kernel."""
    gateway = rig.gateway(datasette_url=upstream.url, max_websockets=10, websocket_idle_seconds=4, token=False)
    with opened(gateway) as wire:
        assert wire.send(b"x").take(1) == b"x"
        wire.vanish()
        request_id = wire.granted["X-Request-Id"]
        line = gateway.until_logged(lambda line: line.get("request_id") == request_id)
    assert line["code"] == "websocket_idle", line
    until_ended(gateway, "idle", 1)


@pytest.mark.parametrize("settings,reason", [({"websocket_drain_seconds": 1, "drain_seconds": 60}, "websocket_drain"),
                                             ({"websocket_drain_seconds": 600, "drain_seconds": 2}, "websocket_gateway")])
def test_a_drain_waits_no_longer_than_allowed(rig, upstream, settings, reason):
    gateway = rig.gateway(datasette_url=upstream.url, max_websockets=10, workers=1, drain_accept_seconds=1, token=False, **settings)
    with opened(gateway) as wire:
        gateway.signal(signal.SIGTERM)
        until(lambda: "drain: begun" in gateway.log, "the drain has begun")
        with contextlib.suppress(CutOff):
            assert wire.receive() == b""
        assert gateway.wait() == 0
        line = gateway.until_logged(lambda line: line["status"] == 101)
        assert line["code"] == reason, line


def test_a_drain_lets_none_begin(rig, upstream):
    gateway = rig.gateway(datasette_url=upstream.url, max_websockets=10, workers=1, drain_seconds=120, drain_accept_seconds=60, token=False)
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.health().status_code == 503, "it drains")
    with asked(gateway) as wire:
        assert wire.answer().status == 503
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0


# -- with what others speak ---------------------------------------------------------------------


async def chat(request):
    """A server that says everything again, and why it leaves."""
    server = web.WebSocketResponse(protocols=["chat"], max_msg_size=0)
    await server.prepare(request)
    async for message in server:
        if message.data == "bye":
            await server.close(code=4001, message=b"over")
        elif message.type == aiohttp.WSMsgType.TEXT:
            await server.send_str(message.data)
        else:
            await server.send_bytes(message.data)
    return server


async def converse(url):
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, protocols=["chat"], compress=15, max_msg_size=0) as client:
            assert client.protocol == "chat" and client.compress
            await client.send_str("grüße" * 200000)
            assert (await client.receive(60)).data == "grüße" * 200000
            await client.send_bytes(BLOCK)
            assert (await client.receive(60)).data == BLOCK
            await client.send_str("bye")
            end = await client.receive(60)
            assert end.type == aiohttp.WSMsgType.CLOSE and end.data == 4001 and end.extra == "over"


def test_a_client_and_a_server_of_the_field(rig):
    """Subprotocol, compression, masked and fragmented frames and the code of the close are between the two."""
    port = free_port()
    gateway = rig.gateway(datasette_url=f"http://127.0.0.1:{port}", max_websockets=1, workers=1, token=False)

    async def run():
        app = web.Application()
        app.router.add_get("/chat", chat)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            await converse(f"{gateway.url}/chat")
        finally:
            await runner.cleanup()
    asyncio.run(run())
    until_closed(gateway)


# -- a client that reads late ---------------------------------------------------------------------


LARGE = [f"X-Large: {'x' * 4000}"] * 10


def test_one_whose_101_had_to_wait(rig, upstream):
    """How long a client is stuck is counted; the worker outlives one that was and is upgraded then. Which answer finds no room is seen
    on a connection without a 101, all of whose answers are as large."""
    gateway = rig.gateway(datasette_url=upstream.url, workers=1, max_websockets=100, token=False)
    granted = []

    @upstream.on("/stuck")
    def stuck(exchange):
        number, switch = exchange["X-Test"].split()
        if number != switch:
            exchange.reply("200 OK", *LARGE)
            return
        wire = grant(exchange, *LARGE)
        granted.append(number)
        with contextlib.suppress(CutOff):
            assert wire.receive() == b""
        exchange.hang_up()

    def pipelined(count, switch):
        wire = Wire(gateway.port, receive_buffer=4096)
        for number in range(count):
            wire.ask("GET", "/stuck", *ASKED, f"X-Test: {number} {switch}")
        return wire

    def rests():
        """How many have come, when no more do."""
        before = len(upstream.asked("/stuck"))
        time.sleep(1)
        return before if before == len(upstream.asked("/stuck")) else 0

    with pipelined(100, None):
        last = until(rests, "an answer finds no room") - 1
    with contextlib.ExitStack() as stack:
        numbers = range(max(last - 1, 0), last + 1)
        wires = [stack.enter_context(pipelined(number + 1, number)) for number in numbers]
        until(lambda: str(last) in granted, "Datasette has switched")
        time.sleep(3)
        assert gateway.metrics().get("spritegate_websockets") < len(granted), "the 101 waits"
        for number, wire in zip(numbers, wires):
            assert [wire.answer().status for _ in range(number)] == [200] * number
            assert wire.head().status == 101
    until_closed(gateway)
    with opened(gateway) as wire:
        assert wire.send(b"x").take(1) == b"x", "the worker still works"


# -- what it takes of the machine -----------------------------------------------------------------


def test_descriptors_suffice_for_all_that_may_be_open(rig, upstream):
    """Of 600 others have 360; Datasette has a quarter of the rest for 30 connections, WebSockets have another one, clients have 120."""
    go_on = threading.Event()
    rig.parts.callback(go_on.set)

    @upstream.on("/held")
    def held(exchange):
        assert go_on.wait(120)
        exchange.reply(body=b"held")
    gateway = rig.gateway(datasette_url=upstream.url, workers=1, max_websockets=1000, client_idle_seconds=600, token=False,
                          argv=["prlimit", "--nofile=600:600", BINARY, "serve"])
    assert "max_connections: the limit of descriptors leaves room for 120" in gateway.log
    assert "max_websockets: the limit of descriptors leaves room for 30" in gateway.log
    with contextlib.ExitStack() as stack:
        tunnels = [stack.enter_context(opened(gateway)) for _ in range(30)]
        with asked(gateway) as more:
            assert more.answer().status == 503
        idle = [stack.enter_context(Wire(gateway.port)) for _ in range(58)]
        assert all(wire.ask("GET", "/nothing").answer().status == 404 for wire in idle)
        plain = [stack.enter_context(Wire(gateway.port)).ask("GET", "/held") for _ in range(30)]
        until(lambda: len(upstream.asked("/held")) == 30, "as many are under way as may be")
        assert "cannot" not in gateway.log and gateway.metrics().get("process_open_fds") < 600
        for wire in tunnels:
            assert wire.send(b"x").take(1) == b"x"
        go_on.set()
        assert [wire.answer().body for wire in plain] == [b"held"] * 30
        assert all(wire.ask("GET", "/nothing").answer().status == 404 for wire in idle)
    until_closed(gateway)


def test_too_few_descriptors_are_no_start(rig, upstream):
    gateway = rig.gateway(datasette_url=upstream.url, workers=1, token=False, wait=False, pool_max=120,
                          argv=["prlimit", "--nofile=800:800", BINARY, "serve"])
    assert gateway.wait() == 2
    assert "descriptors: 800 may be open, with these settings at least 832 are needed" in gateway.log
