"""Answers of Datasette that two readers could take differently become 502 or a cut; the client's connection stays in step."""
import time

import pytest

from answers import problem
from vectors import REFUSE, REPLIES
from wire import CutOff, Wire


@pytest.fixture(scope="module")
def upstream(shared_rig):
    upstream = shared_rig.upstream()
    upstream.routes["/next"] = lambda exchange: exchange.reply(body=b"clean")
    return upstream


@pytest.fixture(scope="module")
def gateway(shared_rig, upstream):
    return shared_rig.gateway(datasette_url=upstream.url, token=False)


def reply_with(upstream, data):
    @upstream.on("/raw")
    def answer(exchange):
        exchange.send(data)
        time.sleep(0.02)
        exchange.hang_up()


def in_step(wire):
    wire.ask("GET", "/next")
    return wire.answer().body == b"clean"


@pytest.mark.smoke
@pytest.mark.parametrize("name", REPLIES)
def test_answer(gateway, upstream, name):
    row = REPLIES[name]
    reply_with(upstream, row.data)
    with Wire(gateway.port) as wire:
        wire.ask(row.method, "/raw")
        answer = wire.head()
        while answer.status < 200:
            answer = wire.head()
        if row.body is None and answer.status == 200:
            got = wire.body_until_cut(answer)
            assert name.startswith("body: ") and (got in row.data or got.startswith(b"hello")), f"the client got {got}"
            assert wire.closed()
            return
        answer.body = b"".join(wire.body(answer, row.method))
        if row.body is None:
            told = problem(answer, 502, "bad-upstream")
            assert "Datasette" in told["detail"] and b"hello" not in answer.body, told
        else:
            assert (answer.status, answer.body) == (row.status, row.body)
            assert (answer["Content-Length"] or answer["Transfer-Encoding"]) == row.framing
            assert answer["Connection"] is None
        for field, values in row.fields.items():
            assert answer.all(field) == values, f"{field} came as {answer.all(field)}"
        assert in_step(wire)


@pytest.mark.parametrize("name", [name for name, row in REPLIES.items() if name.startswith("body: ") and row.demand == REFUSE])
def test_http_1_0_clients_see_a_cut(gateway, upstream, name):
    """Where the end of the connection is the end of the answer, only a reset can tell."""
    reply_with(upstream, REPLIES[name].data)
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/raw", version="HTTP/1.0")
        try:
            assert wire.answer().status == 502, "a cut answer looks whole"
        except CutOff:
            pass
