"""Streams: bytes pass as they come, in bounded memory, and whoever leaves is noticed on the other side."""
import socket
import threading
import time

import pytest

from answers import problem
from nasty import PIECE
from rig import LARGER, SLOWER, until
from wire import CutOff, Wire

MIB = 1024 * 1024
BOUND = 24 * MIB * LARGER       # how much a stream of any size may add to the gateway


@pytest.fixture(scope="module")
def upstream(shared_rig):
    return shared_rig.upstream()


@pytest.fixture(scope="module")
def gateway(shared_rig, upstream):
    gateway = shared_rig.gateway(datasette_url=upstream.url, token=False)
    upstream.routes["/warm"] = lambda exchange: exchange.reply(body=PIECE * 16)
    for _ in range(50):
        assert gateway.get("/warm").status_code == 200
    return gateway


class Growth:
    """Samples the gateway's resident memory while something goes on."""

    def __init__(self, gateway):
        self.gateway, self.start, self.most, self.over = gateway, gateway.rss(), 0, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, self.gateway.rss() - self.start)

    def __exit__(self, *failure):
        self.over.set()
        self.thread.join()
        if not failure[0]:
            assert self.most < BOUND, f"the gateway grew by {self.most / MIB:.1f} MiB"


def endless(upstream, path, framing="chunked"):
    """Sends without end, and counts what the connection took."""
    sent = {"bytes": 0, "closed": None}

    @upstream.on(path)
    def answer(exchange):
        fields = ("Transfer-Encoding: chunked",) if framing == "chunked" else ("Content-Length: 1000000000000",)
        exchange.reply("200 OK", *fields, length=False)
        try:
            while True:
                if framing == "chunked":
                    exchange.chunk(PIECE)
                else:
                    exchange.send(PIECE)
                sent["bytes"] += len(PIECE)
        finally:
            sent["closed"] = time.monotonic()

    return sent


# -- towards the client -----------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_pieces_arrive_as_they_are_sent(gateway, upstream, framing):
    """Each is with the client before the next one is sent."""
    go = threading.Semaphore(0)

    @upstream.on("/pieces")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked" if framing == "chunked" else "Content-Length: 50", length=False)
        for i in range(10):
            assert go.acquire(timeout=60)
            data = b"%05d" % i
            exchange.chunk(data) if framing == "chunked" else exchange.send(data)
        if framing == "chunked":
            exchange.send("0\r\n\r\n")

    with Wire(gateway.port) as wire:
        wire.ask("GET", "/pieces")
        answer = wire.head()
        pieces = wire.body(answer)
        for i in range(10):
            go.release()
            got = b""
            while len(got) < 5:
                got += next(pieces)
            assert got == b"%05d" % i
        assert not list(pieces)


def test_event_stream_is_never_held_back(gateway, upstream):
    """One byte at a time, and each event is with the client before the next one is sent."""
    go = threading.Semaphore(0)

    @upstream.on("/events")
    def answer(exchange):
        exchange.reply("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", "Content-Encoding: none", length=False)
        for i in range(5):
            assert go.acquire(timeout=60)
            for byte in b"data: %d\n\n" % i:
                exchange.chunk(bytes([byte]))
        exchange.send("0\r\n\r\n")

    with Wire(gateway.port) as wire:
        wire.ask("GET", "/events")
        answer = wire.head()
        assert answer["Content-Encoding"] == "none" and answer["Content-Type"] == "text/event-stream"
        pieces = wire.body(answer)
        for i in range(5):
            go.release()
            got = b""
            while len(got) < len(b"data: 0\n\n"):
                got += next(pieces)
            assert got == b"data: %d\n\n" % i
        assert not list(pieces)


def test_200_megabytes_in_bounded_memory(gateway, upstream):
    size = 200 * MIB

    @upstream.on("/large")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        for _ in range(size // len(PIECE)):
            exchange.chunk(PIECE)
        exchange.send("0\r\n\r\n")

    with Wire(gateway.port) as wire, Growth(gateway):
        wire.ask("GET", "/large")
        got = sum(len(piece) for piece in wire.body(wire.head()))
    assert got == size


def kernel_buffers():
    """What the kernel may hold of one connection that nobody reads: its largest receive and send buffer."""
    return sum(int(open(f"/proc/sys/net/ipv4/tcp_{side}", encoding="ascii").read().split()[2]) for side in ("rmem", "wmem"))


def at_rest(sent):
    """How many bytes, if a second added none."""
    held = sent["bytes"]
    time.sleep(1)
    return held if held == sent["bytes"] else None


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_client_that_does_not_read_holds_datasette_back(gateway, upstream, framing):
    """Neither the gateway's memory nor what it takes from Datasette grows."""
    path = "/slow-reader-" + framing
    sent = endless(upstream, path, framing)
    wires = [Wire(gateway.port, receive_buffer=65536) for _ in range(4)]
    with Growth(gateway):
        for wire in wires:
            wire.ask("GET", path)
            wire.head()
        held = until(lambda: at_rest(sent), "Datasette is read on although nobody takes it")
        assert held < 4 * (kernel_buffers() + MIB), f"{held / MIB:.0f} MiB are held for clients that do not read"
        for wire in wires:
            left = 20 * MIB
            while left > 0:
                left -= len(wire.receive())
    for wire in wires:
        wire.reset()
    until(lambda: sent["closed"], "Datasette sees the clients leave")


def test_a_new_connection_leaves_those_in_use_alone(shared_rig, upstream):
    """A stream whose bytes wait for a slow reader goes on when another request opens a connection of its own."""
    gateway = shared_rig.gateway(datasette_url=upstream.url, workers=1, token=False)
    endless(upstream, "/in-use")
    with Wire(gateway.port, receive_buffer=65536) as first:
        first.ask("GET", "/in-use")
        first.head()
        for _ in range(3):
            time.sleep(1.1)
            with Wire(gateway.port) as second:
                second.ask("GET", "/in-use")
                assert second.head().status == 200
            left = 8 * MIB
            while left > 0:
                piece = first.receive()
                assert piece, "the stream was cut"
                left -= len(piece)


def test_slow_reader_gets_everything(gateway, upstream):
    size = 8 * MIB
    upstream.routes["/whole"] = lambda exchange: exchange.reply(body=PIECE * (size // len(PIECE)))
    with Wire(gateway.port, receive_buffer=16384) as wire:
        wire.ask("GET", "/whole")
        got = 0
        for i, piece in enumerate(wire.body(wire.head())):
            assert PIECE[got % 256:got % 256 + 1] == piece[:1]
            got += len(piece)
            if i % 50 == 0:
                time.sleep(0.01)
    assert got == size


# -- towards Datasette --------------------------------------------------------------

def swallow(exchange):
    total = 0
    for piece in exchange.body():
        total += len(piece)
    exchange.reply(body=b"%d" % total)


@pytest.mark.parametrize("chunked", [False, True])
def test_upload_of_128_mib(gateway, upstream, chunked):
    upstream.routes["/upload"] = swallow
    size = 128 * MIB
    with Wire(gateway.port) as wire, Growth(gateway):
        wire.ask("POST", "/upload", "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}")
        for _ in range(size // len(PIECE)):
            wire.chunk(PIECE) if chunked else wire.send(PIECE)
        if chunked:
            wire.send(b"0\r\n\r\n")
        answer = wire.answer()
    assert (answer.status, answer.body) == (200, b"%d" % size)


def test_upload_above_128_mib(gateway, upstream):
    upstream.routes["/upload"] = swallow
    before = len(upstream.asked())
    with Wire(gateway.port) as wire:
        wire.ask("POST", "/upload", f"Content-Length: {128 * MIB + 1}")
        answer = wire.answer()
        assert problem(answer, 413, "body-too-large")["limit_bytes"] == 128 * MIB
        assert wire.closed()
    assert len(upstream.asked()) == before, "Datasette was asked"


def test_chunked_upload_above_the_limit(shared_rig, upstream):
    gateway = shared_rig.gateway(datasette_url=upstream.url, max_body_bytes="1MiB", token=False)
    left = []

    @upstream.on("/upload-cut")
    def answer(exchange):
        try:
            swallow(exchange)
        except CutOff:
            left.append(time.monotonic())
            raise

    with Wire(gateway.port) as wire:
        wire.ask("POST", "/upload-cut", "Transfer-Encoding: chunked")
        try:
            for _ in range(64):
                wire.chunk(PIECE)
        except OSError:
            pass
        answer = wire.answer()
        assert answer.status == 413, answer.text
        assert wire.closed()
    until(lambda: left, "Datasette sees that the upload was cut")


def test_chunked_upload_above_the_limit_of_an_answer_under_way(shared_rig, upstream):
    """It is cut, and nothing is said a second time."""
    gateway = shared_rig.gateway(datasette_url=upstream.url, max_body_bytes="1MiB", token=False)

    @upstream.on("/upload-answered")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"begun")
        swallow(exchange)

    with Wire(gateway.port, limit=20) as wire:     # at once, not when a silent body is given up
        wire.ask("POST", "/upload-answered", "Transfer-Encoding: chunked")
        wire.chunk(PIECE)
        seen = b""
        while b"begun" not in seen:
            seen += wire.receive()
        try:
            for _ in range(64):
                wire.chunk(PIECE)
            while piece := wire.receive():
                seen += piece
        except (CutOff, ConnectionError):
            pass
    assert seen.count(b"HTTP/1.1 ") == 1 and not seen.endswith(b"0\r\n\r\n"), seen
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") == 0, "the request has ended")


def test_upload_is_streamed(gateway, upstream):
    """Datasette has the first bytes before the last ones are sent."""
    first = threading.Event()

    @upstream.on("/streamed")
    def answer(exchange):
        pieces = exchange.body()
        assert next(pieces) == b"first"
        first.set()
        exchange.reply(body=b"".join(pieces))

    with Wire(gateway.port) as wire:
        wire.ask("POST", "/streamed", "Transfer-Encoding: chunked")
        wire.chunk(b"first")
        assert first.wait(30), "the upload is held back until it is complete"
        wire.chunk(b"second")
        wire.send(b"0\r\n\r\n")
        assert wire.answer().body == b"second"


def test_datasette_that_does_not_read_holds_the_client_back(gateway, upstream):
    done, size = threading.Event(), 2 * kernel_buffers() + 16 * MIB     # two connections, and much more than the gateway may hold

    @upstream.on("/no-reading")
    def answer(exchange):
        done.wait(120)
        swallow(exchange)

    with Wire(gateway.port) as wire, Growth(gateway):
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        wire.ask("POST", "/no-reading", f"Content-Length: {size}")
        wire.socket.settimeout(1)
        sent = 0
        try:
            while sent < size:
                sent += wire.socket.send(PIECE[:min(len(PIECE), size - sent)])
        except TimeoutError:
            pass
        assert sent < size, f"all {sent / MIB:.0f} MiB were taken although Datasette reads nothing"
        done.set()
        wire.socket.settimeout(30)
        while sent < size:
            sent += wire.socket.send(PIECE[:min(len(PIECE), size - sent)])
        assert wire.answer().body == b"%d" % size


def test_answer_that_begins_before_the_request_has_ended(gateway, upstream):
    """libmicrohttpd sends it when the request has ended: later, but whole."""
    @upstream.on("/echo")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        for piece in exchange.body():
            exchange.chunk(piece)
        exchange.send("0\r\n\r\n")

    with Wire(gateway.port) as wire:
        wire.ask("POST", "/echo", "Transfer-Encoding: chunked")
        sent = b""
        for i in range(20):
            wire.chunk(b"%d" % i)
            sent += b"%d" % i
            time.sleep(0.01)
        wire.send(b"0\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, sent)


# -- leaving --------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_leaves_while_datasette_thinks(gateway, upstream, how):
    noticed = []

    @upstream.on("/thinking")
    def answer(exchange):
        noticed.append(exchange.left_within(20 * SLOWER))
        exchange.hang_up()

    wire = Wire(gateway.port)
    wire.ask("GET", "/thinking")
    until(lambda: upstream.asked("/thinking"), "Datasette is asked")
    time.sleep(0.1)
    wire.reset() if how == "reset" else wire.close()
    until(lambda: noticed, "the route ends")
    assert noticed[0] is not None, "Datasette's connection stays open"
    upstream.requests.clear()


def test_client_leaves_in_the_middle_of_an_answer(gateway, upstream):
    sent = endless(upstream, "/left")
    wire = Wire(gateway.port)
    wire.ask("GET", "/left")
    wire.head()
    wire.reset()
    until(lambda: sent["closed"], "Datasette sees the client leave", 20 * SLOWER)


def test_client_leaves_in_the_middle_of_its_upload(gateway, upstream):
    seen = []

    @upstream.on("/half")
    def answer(exchange):
        try:
            exchange.read()
            seen.append("whole")
        except CutOff:
            seen.append("cut")
            raise

    for fields, data in ((("Content-Length: 1000",), b"half"), (("Transfer-Encoding: chunked",), b"4\r\nhalf\r\n")):
        seen.clear()
        wire = Wire(gateway.port)
        wire.ask("POST", "/half", *fields).send(data)
        until(lambda: upstream.asked("/half"), "Datasette is asked")
        wire.close()
        until(lambda: seen, "the route ends")
        assert seen == ["cut"], "a cut upload looks complete to Datasette"
        upstream.requests.clear()


def test_many_clients_leave(gateway, upstream):
    """Nothing of them stays."""
    sent = endless(upstream, "/leave")
    before = gateway.fds()
    wires = [Wire(gateway.port) for _ in range(100)]
    for wire in wires:
        wire.ask("GET", "/leave")
    for wire in wires:
        wire.head()
    for i, wire in enumerate(wires):
        wire.reset() if i % 2 else wire.close()
    until(lambda: gateway.metrics().get("spritegate_connections") <= 1, "the connections are gone")
    until(lambda: gateway.fds() <= before + 8, lambda: f"{gateway.fds()} descriptors are open, {before} before")
    assert sent["bytes"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_leaves_near_the_end_of_an_answer(shared_rig, upstream, how):
    """Whenever it leaves, its connection is given back at once, not when some time-out has passed."""
    @upstream.on("/two-parts")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"x" * 600)
        time.sleep(0.002)
        exchange.chunk(b"x" * 60_000)
        exchange.send("0\r\n\r\n")

    gateway = shared_rig.gateway(datasette_url=upstream.url, token=False)
    for _ in range(100):
        wire = Wire(gateway.port)
        wire.ask("GET", "/two-parts", "Connection: close")
        wire.receive(100)
        wire.reset() if how == "reset" else wire.close()
    until(lambda: gateway.metrics().get("spritegate_connections") <= 1,
          lambda: f"the connections of 100 clients that left are closed; {gateway.metrics().get('spritegate_connections')} are open", 30)
