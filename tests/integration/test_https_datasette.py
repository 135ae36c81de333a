"""Datasette behind https: the same as without, in both directions, and nothing of it that cannot be trusted."""
import contextlib
import socket
import subprocess
import threading

import pytest

from answers import problem
from certificates import certificate
from nasty import PIECE
from rig import BINARY, until
from test_websocket import BLOCK, echo, grant, opened, pieces, until_closed
from wire import CutOff, Wire


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")


def leave(exchange, told):
    """End the connection, in TLS as well or of TCP alone."""
    if told:
        with contextlib.suppress(OSError):
            exchange.wire.socket.unwrap()
    exchange.hang_up()


@pytest.fixture(scope="module")
def upstream(shared_rig, ours):
    upstream = shared_rig.upstream(tls=ours.tls)
    upstream.routes["/echo"] = lambda exchange: exchange.reply(body=exchange.read())
    upstream.routes["/socket"] = echo
    return upstream


@pytest.fixture(scope="module")
def gateway(shared_rig, upstream, ours):
    return shared_rig.gateway(datasette_url=upstream.url, datasette_ca_file=ours.certificate, workers=1, max_websockets=10, token=False)


def test_bodies_both_ways(gateway, upstream):
    with Wire(gateway.port) as wire:
        for size in (0, 1, 16_384, 16_385, 100_000, 3_000_000):
            body = (PIECE * (size // len(PIECE) + 1))[:size]
            wire.ask("POST", "/echo", body=body)
            assert wire.answer().body == body
            wire.ask("POST", "/echo", "Transfer-Encoding: chunked", length=False)
            wire.chunk(body or b"x").send(b"0\r\n\r\n")
            assert wire.answer().body == (body or b"x")
    assert upstream.connections == 1, "a connection is used again"


def test_pieces_arrive_as_they_are_sent(gateway, upstream):
    """What came in one record with something else waits for nothing."""
    go_on = threading.Event()

    @upstream.on("/halves")
    def halves(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n")
        assert go_on.wait(60)
        exchange.send(b"1\r\nc\r\n0\r\n\r\n")
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/halves")
        pieces, got = wire.body(wire.head()), b""
        while got != b"ab":
            got += next(pieces)
        go_on.set()
        assert b"".join(pieces) == b"c"


def test_a_client_that_reads_late_gets_everything(gateway, upstream):
    """Between what libcurl has decrypted and what the kernel has, nothing is forgotten."""
    upstream.routes["/large"] = lambda exchange: exchange.reply(body=PIECE * 400)
    with Wire(gateway.port, receive_buffer=16_384) as wire:
        wire.ask("GET", "/large")
        head = wire.head()
        until(lambda: len(upstream.asked("/large")), "it is asked")
        assert b"".join(wire.body(head)) == PIECE * 400


@pytest.mark.parametrize("told", [True, False], ids=["told", "cut"])
def test_an_end_without_a_length_is_one_only_if_told(gateway, upstream, told):
    """TLS tells an end; that of TCP alone is anybody's."""
    @upstream.on("/end")
    def end(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\n\r\n" + PIECE)
        leave(exchange, told)
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/end")
        if told:
            assert wire.answer().body == PIECE
        else:
            with pytest.raises(CutOff):
                wire.answer()


@pytest.mark.parametrize("told", [True, False], ids=["told", "cut"])
def test_an_idle_connection_that_datasette_closes_is_not_kept(gateway, upstream, told):
    @upstream.on("/and-close")
    def and_close(exchange):
        exchange.reply(body=b"x")
        leave(exchange, told)
    with Wire(gateway.port) as wire:
        assert wire.ask("GET", "/and-close").answer().body == b"x"
        until(lambda: gateway.metrics().get("spritegate_upstream_connections") == 0, "it is closed")
        assert wire.ask("POST", "/echo", body=b"y").answer().body == b"y"


def test_nobody_that_is_not_vouched_for(rig, upstream, ours, tmp_path):
    """Neither without the certificate, nor under another name: nothing is asked, and no name of the inside is told."""
    other = certificate(tmp_path, "127.0.0.2")
    elsewhere = rig.upstream(tls=other.tls)
    for where, trusted in ((upstream, ""), (upstream, other.certificate), (elsewhere, other.certificate)):
        gateway = rig.gateway(datasette_url=where.url, datasette_ca_file=trusted, workers=1, token=False)
        with Wire(gateway.port) as wire:
            answer = wire.ask("GET", "/secret").answer()
        assert problem(answer, 502, "bad-upstream")["upstream_error"] == "connect", answer.body
        assert not where.asked("/secret")


def test_a_file_of_ones_own_is_the_only_one(rig, ours, tmp_path):
    """Those whom the system trusts do not vouch beside it."""
    other = certificate(tmp_path, "127.0.0.1", "other")
    subprocess.run(["openssl", "rehash", tmp_path], check=True, capture_output=True, timeout=60)
    elsewhere = rig.upstream(tls=other.tls)
    among = ["unshare", "-rm", "sh", "-c", 'mount --bind "$0" /etc/ssl/certs && exec "$@"', tmp_path, BINARY, "serve"]
    for trusted, status in ((other.certificate, 404), (ours.certificate, 502)):
        gateway = rig.gateway(datasette_url=elsewhere.url, datasette_ca_file=trusted, workers=1, token=False, argv=among)
        with Wire(gateway.port) as wire:
            assert wire.ask("GET", "/secret").answer().status == status


# -- WebSocket ---------------------------------------------------------------------------------


def test_a_websocket_both_ways(gateway):
    sent = BLOCK * 3
    with opened(gateway, "/socket") as wire:
        writer = threading.Thread(target=wire.send, args=(sent,))
        writer.start()
        assert wire.take(len(sent)) == sent
        writer.join()
        assert wire.send(b"x").take(1) == b"x"
    until_closed(gateway)


@pytest.mark.parametrize("told", [True, False], ids=["told", "cut"])
def test_a_websocket_that_datasette_ends(gateway, upstream, told):
    @upstream.on("/leaves")
    def leaves(exchange):
        grant(exchange, after=b"last words")
        leave(exchange, told)
    with opened(gateway, "/leaves") as wire:
        assert wire.take(10) == b"last words"
        if told:
            assert wire.receive() == b""
        else:
            with pytest.raises(CutOff):
                wire.receive()
    until_closed(gateway)


def test_a_websocket_whose_client_ends(gateway, upstream):
    """The end of one direction cannot be told through TLS without ending both."""
    left = threading.Event()

    @upstream.on("/waits")
    def waits(exchange):
        with contextlib.suppress(CutOff, OSError):
            assert b"".join(pieces(grant(exchange))) == b"bye"
        left.set()
        exchange.hang_up()
    with opened(gateway, "/waits") as wire:
        wire.send(b"bye").socket.shutdown(socket.SHUT_WR)
        assert left.wait(60)
        assert wire.closed(60)
    until_closed(gateway)
