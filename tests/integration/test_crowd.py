"""Too many clients, or too slow ones: who waits, who is refused, and that the others do not notice."""
import concurrent.futures
import contextlib
import select
import socket
import threading
import time

import pytest

from answers import problem
from nasty import PIECE
from rig import until
from wire import CutOff, Wire, exec_request

MANY = 64       # the least that MAX_CONNECTIONS may be


def wire_from(address, port):
    """A connection of another client of this machine."""
    wire = Wire.__new__(Wire)
    wire.socket, wire.buffer = socket.create_connection(("127.0.0.1", port), 30, (address, 0)), b""
    return wire


def held(upstream):
    """Requests for /held are answered when the event is set."""
    go_on = threading.Event()

    @upstream.on("/held")
    def answer(exchange):
        assert go_on.wait(120)
        exchange.reply(body=b"held")
    upstream.routes[None] = lambda exchange: exchange.reply(body=b"plain")
    return go_on


@pytest.fixture
def gateway_of(rig):
    """A gateway with one worker in front of an upstream that holds requests: (gateway, go_on)."""
    def start(**settings):
        upstream = rig.upstream()
        go_on = held(upstream)
        rig.parts.callback(go_on.set)
        return rig.gateway(datasette_url=upstream.url, workers=1, token=False, **settings), go_on, upstream
    return start


@contextlib.contextmanager
def closing(wires):
    try:
        yield wires
    finally:
        for wire in wires:
            wire.close()


def crowded(gateway, reason):
    return gateway.metrics().get("spritegate_connections_crowded_total", reason=reason)


def plain(wire):
    wire.ask("GET", "/plain")
    return wire.answer()


def test_who_is_idle_for_longest_makes_room(gateway_of):
    gateway, go_on, upstream = gateway_of(max_connections=MANY)
    with closing([Wire(gateway.port)]) as wires:
        wires[0].ask("GET", "/held")
        until(lambda: upstream.asked("/held"), "the oldest connection has a request under way")
        for _ in range(2 * MANY):
            wires.append(Wire(gateway.port))
            assert plain(wires[-1]).body == b"plain"
        until(lambda: gateway.metrics().get("spritegate_connections") <= MANY, "not more are open than may be")
        assert crowded(gateway, "idle") >= MANY and crowded(gateway, "total") == 0
        assert all(wire.closed(30) for wire in wires[1:MANY // 2]), "the idle ones that came first are closed"
        assert plain(wires[-1]).body == b"plain", "the newest one is not"
        go_on.set()
        assert wires[0].answer().body == b"held", "nor the one with a request under way"


def test_who_has_just_asked_is_not_idle(gateway_of):
    """Though nobody has read the request yet."""
    gateway, _, _ = gateway_of(max_connections=MANY)
    with closing([Wire(gateway.port) for _ in range(MANY)]) as wires:
        assert all(plain(wire).body == b"plain" for wire in wires)
        asking, late, before = wires[:MANY // 2], [], crowded(gateway, "idle")
        with gateway.frozen():
            late.extend(Wire(gateway.port) for _ in range(MANY // 4))
            for wire in asking:
                wire.ask("GET", "/plain")
        wires += late
        assert [wire.answer().body for wire in asking] == [b"plain"] * len(asking)
        until(lambda: crowded(gateway, "idle") == before + len(late), "others made room")
        assert [plain(wire).body for wire in late] == [b"plain"] * len(late)


def test_when_nobody_is_idle_a_new_one_is_refused(gateway_of):
    gateway, go_on, upstream = gateway_of(max_connections=MANY)
    with closing([Wire(gateway.port) for _ in range(MANY)]) as wires:
        for wire in wires:
            wire.ask("GET", "/held")
        until(lambda: len(upstream.asked("/held")) == MANY, "all have a request under way")
        with Wire(gateway.port) as late:
            problem(late.answer(), 503, "temporary-reduced-capacity", named=False)
            assert late.closed(30)
        assert crowded(gateway, "total") == 1
        go_on.set()
        assert [wire.answer().body for wire in wires] == [b"held"] * MANY
    until(gateway.serves, "there is room again")


def test_an_address_has_as_many_as_it_may_have(gateway_of):
    gateway, _, _ = gateway_of(max_connections_per_address=3)
    with closing([wire_from("127.0.0.2", gateway.port) for _ in range(3)]) as wires:
        assert [plain(wire).status for wire in wires] == [200] * 3
        with wire_from("127.0.0.2", gateway.port) as more:
            problem(more.answer(), 429, "too-many-connections", named=False)
            assert more.closed(30)
        assert crowded(gateway, "address") == 1
        with wire_from("127.0.0.3", gateway.port) as other:
            assert plain(other).status == 200, "another address is not affected"
        wires.pop().close()
        until(lambda: served(gateway.port), "a place that was given up is free again")


def served(port):
    with wire_from("127.0.0.2", port) as wire:
        try:
            return plain(wire).status == 200
        except (CutOff, OSError):
            return False


def test_connections_of_trusted_proxies_are_not_counted(gateway_of):
    gateway, _, _ = gateway_of(max_connections_per_address=2, trusted_proxies="127.0.0.0/8")
    with closing([wire_from("127.0.0.2", gateway.port) for _ in range(8)]) as wires:
        assert [plain(wire).status for wire in wires] == [200] * 8


def test_requests_beyond_the_limit_are_refused(gateway_of):
    gateway, go_on, upstream = gateway_of(max_requests=16)
    with closing([Wire(gateway.port) for _ in range(16)]) as wires:
        for wire in wires:
            wire.ask("GET", "/held")
        until(lambda: len(upstream.asked("/held")) == 16, "all are under way")
        with Wire(gateway.port) as late:
            problem(plain(late), 503, "temporary-reduced-capacity")
            go_on.set()
            assert [wire.answer().body for wire in wires] == [b"held"] * 16
            until(lambda: plain(late).status == 200, "there is room again, on the same connection")


def test_memory_bounds_both(gateway_of):
    """Half of 10 MiB for requests, 320 KiB each; the rest for connections, 160 KiB each."""
    gateway, go_on, upstream = gateway_of(client_memory_bytes="10MiB")
    for name, room in (("max_connections", 32), ("max_requests", 16)):
        assert f"{name}: client_memory_bytes leaves room for {room}\"" in gateway.log
    with closing([Wire(gateway.port) for _ in range(16)]) as wires:
        for wire in wires:
            wire.ask("GET", "/held")
        until(lambda: len(upstream.asked("/held")) == 16, "as many are under way as may be")
        for _ in range(16):
            wires.append(Wire(gateway.port))
            problem(plain(wires[-1]), 503, "temporary-reduced-capacity")
        before = crowded(gateway, "idle")
        for _ in range(16):
            wires.append(Wire(gateway.port))
            problem(plain(wires[-1]), 503, "temporary-reduced-capacity")
        until(lambda: crowded(gateway, "idle") == before + 16, "idle ones made room")
        go_on.set()
        assert [wire.answer().body for wire in wires[:16]] == [b"held"] * 16


def test_memory_bounds_bodies_of_commands(rig, gateway_of):
    """They have half as much again: one of two that are larger than half of that."""
    gateway, _, _ = gateway_of(client_memory_bytes="10MiB", exec_max_body_bytes="4MiB")
    request = exec_request(rig.mint()["token"], b"x" * (3 << 20))
    with Wire(gateway.port) as one, Wire(gateway.port) as other:
        for wire in (one, other):
            with contextlib.suppress(OSError):      # it may be refused meanwhile
                wire.send(request[:-1])
        told, _, _ = select.select([one.socket, other.socket], [], [], 60)
        refused, kept = (one, other) if one.socket in told else (other, one)
        problem(refused.answer(), 503, "temporary-reduced-capacity")
        kept.send(request[-1:])
        problem(kept.answer(), 400, "malformed-request")


def test_too_little_memory_is_said_at_the_start(rig):
    gateway = rig.gateway(wait=False, token=False, workers=2, client_memory_bytes="19MiB")
    assert gateway.wait() != 0
    assert f"client_memory_bytes: {19 << 20} are not enough, with these settings at least {20 << 20} are needed" in gateway.log


def endless(exchange):
    exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
    while True:
        exchange.chunk(PIECE)


def sip(port, size, until_true, buffer):
    """A reader that takes so many bytes twice a second. Whether it could until `until_true` was. `buffer` says how often that shows."""
    with Wire(port, receive_buffer=buffer) as wire, contextlib.suppress(CutOff, OSError):
        wire.ask("GET", "/endless")
        wire.head()
        while wire.socket.recv(size):
            if until_true():
                return True
            time.sleep(0.5)
    return False


def test_who_takes_an_answer_too_slowly_is_cut(gateway_of):
    """No single silence is too long. Who is faster is left alone."""
    gateway, _, upstream = gateway_of(client_idle_seconds=10)
    upstream.routes["/endless"] = endless
    over = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        steady = pool.submit(sip, gateway.port, 8192, over.is_set, 65536)
        end = time.monotonic() + 90
        try:
            assert not sip(gateway.port, 200, lambda: time.monotonic() > end, 1)
        finally:
            over.set()
        assert steady.result(30)
    until(lambda: gateway.metrics().get("spritegate_http_aborts_total", side="client") == 2, "one was cut, the other left")
