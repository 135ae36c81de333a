"""Datasette fails: the client is told whose fault it is, or sees the cut; nothing is made to look whole."""
import socket
import time

import pytest

from answers import problem
from nasty import PIECE, Closed, Upstream
from rig import until
from wire import CutOff, Wire


@pytest.fixture(scope="module")
def upstream(shared_rig):
    return shared_rig.upstream()


@pytest.fixture(scope="module")
def gateway(shared_rig, upstream):
    return shared_rig.gateway(datasette_url=upstream.url, token=False)


def raw(upstream, data, path="/raw"):
    """Answer with these bytes, then close."""
    @upstream.on(path)
    def answer(exchange):
        exchange.send(data)
        time.sleep(0.05)
        exchange.hang_up()


def ask(gateway, path="/raw", method="GET"):
    with Wire(gateway.port) as wire:
        wire.ask(method, path)
        return wire.answer(to=method)


# -- before an answer -------------------------------------------------------------

@pytest.mark.smoke
def test_nobody_listens(rig):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gateway = rig.gateway(datasette_url=f"http://127.0.0.1:{unused.getsockname()[1]}", token=False, wait=False)
        gateway.until_up(gateway.serves)
        for method in ("GET", "POST"):
            body = problem(gateway.http.request(method, "/sample"), 502, "bad-upstream")
            assert "Datasette" in body["detail"], body
            assert "127.0.0.1" not in body["detail"] and "port" not in body["detail"], "an address of the inside is told"
        assert gateway.log.count("Failed to connect to 127.0.0.1 port") in range(1, 5), "the log tells it once a worker"
        health = gateway.health().json()
        assert health["datasette"] == "down", health
        assert gateway.metrics().get("spritegate_upstream_errors_total", kind="connect") >= 2
        assert gateway.metrics().get("spritegate_upstream_healthy") == 0


def test_comes_back_by_itself(rig):
    first = Upstream()
    gateway = rig.gateway(datasette_url=first.url, token=False)
    assert ask(gateway).status == 404
    first.close()
    until(lambda: ask(gateway).status == 502, "Datasette is away")
    rig.upstream(first.port).routes["/raw"] = lambda exchange: exchange.reply(body=b"back")
    assert ask(gateway).body == b"back"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_closed_without_an_answer(gateway, upstream, method):
    upstream.routes["/nothing"] = lambda exchange: exchange.hang_up()
    body = problem(ask(gateway, "/nothing", method), 502, "bad-upstream")
    assert "Datasette" in body["detail"], body


def test_reset_without_an_answer(gateway, upstream):
    upstream.routes["/reset"] = lambda exchange: exchange.reset()
    problem(ask(gateway, "/reset"), 502, "bad-upstream")


# -- in the middle of an answer -----------------------------------------------------

def test_cut_in_the_middle_of_a_stream(gateway, upstream):
    @upstream.on("/stream")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        for _ in range(100):
            exchange.chunk(PIECE)
        time.sleep(0.2)
        exchange.reset()

    with Wire(gateway.port) as wire:
        wire.ask("GET", "/stream")
        assert wire.body_until_cut(wire.head()), "nothing came through before the cut"
    assert gateway.metrics().get("spritegate_http_aborts_total", side="upstream") >= 1


@pytest.mark.parametrize("data", [b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Len", b""])
def test_bytes_and_a_reset_at_once(gateway, upstream, data):
    """Both are there when the gateway looks."""
    @upstream.on("/at-once")
    def answer(exchange):
        with gateway.frozen():
            exchange.send(data)
            with pytest.raises(Closed):
                exchange.reset()
            exchange.wire.socket.close()
        exchange.hang_up()
    for _ in range(5):
        problem(ask(gateway, "/at-once"), 502, "bad-upstream")


def test_cut_of_http_1_0(gateway, upstream):
    """Where the end of the connection is the end of the answer, only a reset can tell a cut."""
    raw(upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 500)
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/raw", version="HTTP/1.0")
        with pytest.raises(CutOff):
            answer = wire.answer()
            assert answer.status == 502, "a cut answer looks whole"
            raise CutOff


# -- large heads --------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


def large_head(upstream, size):
    raw(upstream, OK + b"X: " + b"x" * size + b"\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.parametrize("size, target, answered", [(60_000, 10, True), (65_000, 32_000, True), (200_000, 10, False), (300_000, 10, False)])
def test_large_heads_of_answers(gateway, upstream, size, target, answered):
    """64 KiB beside the largest request head; where it does not go, the limit is ours, and Datasette is not blamed."""
    large_head(upstream, size)
    errors = gateway.metrics().get("spritegate_upstream_errors_total")
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/raw?" + "x" * target)
        answer = wire.answer()
    if answered:
        assert (answer.status, len(answer["X"]), answer.body) == (200, size, b"hello")
    else:
        body = problem(answer, 502, "answer-head-too-large")
        assert "larger than this gateway passes on" in body["detail"] and "failed" not in body["detail"], body
        assert gateway.metrics().get("spritegate_upstream_errors_total") == errors
        assert gateway.metrics().get("spritegate_upstream_healthy") == 1


def test_large_head_before_requests_that_wait(gateway, upstream):
    """What the client has sent ahead takes none of its room."""
    large_head(upstream, 64_000)
    with Wire(gateway.port) as wire:
        wire.send(b"GET /raw HTTP/1.1\r\nHost: x\r\n\r\n" + (b"GET /raw?" + b"y" * 980 + b" HTTP/1.1\r\nHost: x\r\n\r\n") * 150)
        for _ in range(10):
            answer = wire.answer()
            assert (answer.status, len(answer["X"]), answer.body) == (200, 64_000, b"hello")


def test_larger_heads_of_answers_are_the_same_setting(shared_rig, upstream):
    large_head(upstream, 250_000)
    large = shared_rig.gateway(datasette_url=upstream.url, max_head_bytes="128KiB", token=False)
    with Wire(large.port) as wire:
        wire.ask("GET", "/raw?" + "x" * 125_000)
        answer = wire.answer()
        assert (answer.status, len(answer["X"]), answer.body) == (200, 250_000, b"hello")


def test_bytes_after_an_answer_are_nobody_s(gateway, upstream):
    """A second answer that was not asked for must not become the answer to another request."""
    @upstream.on("/extra")
    def answer(exchange):
        exchange.send(OK + b"Content-Length: 3\r\n\r\none" + OK + b"Content-Length: 6\r\n\r\npoison")

    upstream.routes["/next"] = lambda exchange: exchange.reply(body=b"clean")
    for _ in range(5):
        assert ask(gateway, "/extra").body == b"one"
        assert ask(gateway, "/next").body == b"clean"


def test_body_of_204_and_head_is_not_taken_for_an_answer(gateway, upstream):
    raw(upstream, b"HTTP/1.1 204 No Content\r\n\r\n" + OK + b"Content-Length: 6\r\n\r\npoison")
    upstream.routes["/next"] = lambda exchange: exchange.reply(body=b"clean")
    assert ask(gateway).status == 204
    assert ask(gateway, "/next").body == b"clean"


def test_metrics_tell_what_failed(gateway, upstream):
    raw(upstream, OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello")
    before = gateway.metrics().get("spritegate_upstream_errors_total", kind="protocol")
    ask(gateway)
    until(lambda: gateway.metrics().get("spritegate_upstream_errors_total", kind="protocol") == before + 1, "its end has been counted")


# -- too slow --------------------------------------------------------------------------

def test_answer_that_does_not_come(shared_rig, upstream):
    """504 at the time set, and Datasette is let go."""
    gateway = shared_rig.gateway(datasette_url=upstream.url, datasette_timeout_seconds=2, token=False)
    left = []

    @upstream.on("/never")
    def answer(exchange):
        left.append(exchange.left_within(60))
        exchange.hang_up()

    with Wire(gateway.port) as wire:
        began = time.monotonic()
        wire.ask("GET", "/never")
        body = problem(wire.answer(), 504, "upstream-timeout")
        assert "Datasette" in body["detail"], body
        assert 1.9 < time.monotonic() - began < 50
    until(lambda: left and left[0] is not None, "the connection to Datasette is closed")


def test_answer_that_stops(shared_rig, upstream):
    """What is silent in the middle for the time set is cut, but for event streams."""
    gateway = shared_rig.gateway(datasette_url=upstream.url, datasette_timeout_seconds=1, client_idle_seconds=1, token=False)

    @upstream.on("/stops")
    def answer(exchange):
        exchange.reply("200 OK", "Content-Type: " + exchange["Accept"], "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"first")
        if exchange.left_within(3) is None:
            exchange.chunk(b"last")
            exchange.send("0\r\n\r\n")

    with Wire(gateway.port) as wire:
        wire.ask("GET", "/stops", "Accept: text/csv")
        assert wire.body_until_cut(wire.head()) == b"first"
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/stops", "Accept: text/event-stream; charset=utf-8")
        assert wire.answer().body == b"firstlast"
