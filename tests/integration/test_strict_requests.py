"""Requests that two readers could take differently are refused before Datasette sees them; the others reach it in one reading."""
import time

import pytest

from answers import problem
from observer import Recorder, observe
from rig import until
from vectors import CHUNKED, CLOSED, GET, PASS, POST, REFUSE, REQUESTS
from wire import CutOff, Wire


@pytest.fixture(scope="module")
def recorder(shared_rig):
    recorder = Recorder()
    return shared_rig.add(recorder, recorder.close)


@pytest.fixture(scope="module")
def gateway(shared_rig, recorder):
    return shared_rig.gateway(datasette_url=recorder.url, token=False)


CODES = {400: "malformed-request", 405: "method-not-allowed", 413: "body-too-large", 417: "expectation-failed", 501: "not-implemented", 505: "version-not-supported"}


def refusals(gateway):
    return gateway.metrics().get("spritegate_http_rejected_total")


@pytest.mark.smoke
@pytest.mark.parametrize("name", REQUESTS)
def test_request(gateway, recorder, name):
    row = REQUESTS[name]
    before = refusals(gateway)
    seen = observe(gateway.port, recorder, row.data)
    assert seen.statuses == ([row.status] if row.status else []), seen.answers and seen.answers[0].text
    assert seen.end == row.end, f"the connection is {seen.end}"
    assert seen.arrived == ([row.arrives] if row.arrives else [])
    assert row.begins or not seen.begun, f"it began to arrive: {[exchange.raw for exchange in seen.begun]}"
    for field, values in row.fields.items():
        assert seen.whole[0].all(field) == values, f"{field} arrived as {seen.whole[0].all(field)}"
    if row.status and row.status >= 400:
        # What libmicrohttpd cannot read has no id.
        problem(seen.answers[0], row.status, row.code or CODES[row.status], named=seen.answers[0]["X-Request-Id"] is not None)
    if row.status == 200 and not row.data.startswith(b"HEAD"):
        assert row.body == b"" or seen.answers[0].body == row.body
    # Each refusal is counted once, whoever refused. The paths that are ours have refusals of their own.
    refused = row.end == CLOSED and row.status != 200
    assert refusals(gateway) == before + refused, f"counted {refusals(gateway) - before} times"


def test_the_table_is_worth_something():
    demands = [row.demand for row in REQUESTS.values()]
    assert len(demands) > 250 and demands.count(REFUSE) > 80 and demands.count(PASS) > 60
    for name, row in REQUESTS.items():
        assert row.demand != REFUSE or (row.status != 200 and row.end == CLOSED and not row.arrives), name


# method, target -> status, Allow; Datasette hears nothing
ANSWERED_HERE = {
    ("TRACE", "/"): (405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("CONNECT", "a:80"): (405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("CONNECT", "/"): (405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("TRACE", "/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("CONNECT", "/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("PUT", "/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("post", "/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("TRACE", "http://gateway.test/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("TRACE", "/-/gateway/health"): (405, "GET, HEAD"),
    ("POST", "/-/gateway/health"): (405, "GET, HEAD"),
    ("OPTIONS", "*"): (204, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("PUT", "*"): (400, None),
}


@pytest.mark.parametrize(("method", "target"), ANSWERED_HERE)
def test_methods_answered_here(gateway, recorder, method, target):
    before = len(recorder.asked())
    with Wire(gateway.port) as wire:
        wire.ask(method, target)
        answer = wire.answer()
    assert (answer.status, answer["Allow"]) == ANSWERED_HERE[method, target], answer.text
    assert len(recorder.asked()) == before


def test_endless_chunk_lines_leave_nothing_behind(shared_rig, recorder):
    """Whatever becomes of such a request, it ends: for the client, towards Datasette, and in our books."""
    gateway = shared_rig.gateway(datasette_url=recorder.url, token=False)
    wires_open = []
    lines = ((first, size) for first in (b"3;", b"0") for size in (30_000, 33_000, 60_000, 100_000, 200_000, 1_000_000))
    for first, size in lines:
        for pause in (0, 0.002, 0.05):
            wire = Wire(gateway.port)
            wire.ask("POST", "/", "Transfer-Encoding: chunked")
            time.sleep(pause)
            wire.socket.settimeout(0.2)
            try:
                wire.send(first + b"0" * size + b"\r\nabc\r\n0\r\n\r\n")
            except OSError:
                pass
            wires_open.append(wire)
    time.sleep(14)      # a body that does not go on is given 10 s
    for wire in wires_open:
        assert wire.everything(1) is not None
        wire.close()
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") == 0, "no request is under way", 5)
    until(lambda: gateway.metrics().get("spritegate_connections") <= 1, "the connections are gone", 5)
    gateway.signal(15)
    assert gateway.wait(15) == 0


def test_chunk_extensions_in_two_parts(gateway, recorder):
    body = b"3 ;a=\"b\"\r\nabc\r\n0;c\r\n\r\n"
    for at in range(1, len(body)):
        with Wire(gateway.port) as wire:
            wire.send(CHUNKED + body[:at])
            assert wire.silent(0.02), at
            wire.send(body[at:])
            answer = wire.answer()
            assert (answer.status, answer.body) == (200, b"abc"), f"{at}: {answer.text}"


@pytest.mark.parametrize("body", [b"3;a\rb\r\nabc\r\n0\r\n\r\n", b"3;a\r\nab\r\n0\r\n\r\n", b"3 ;a\nabc\r\n0\r\n\r\n"], ids=["CR", "shorter than said", "LF"])
def test_broken_chunk_extensions_in_two_parts(gateway, recorder, body):
    before = len(recorder.whole)
    for at in range(1, len(body)):
        with Wire(gateway.port) as wire:
            try:
                wire.send(CHUNKED + body[:at])
                if wire.silent(0.02):
                    wire.send(body[at:])
                assert wire.answer().status == 400 and wire.closed(), at
            except (CutOff, ConnectionError):
                pass    # refused before the rest was sent
    assert len(recorder.whole) == before


# bytes -> status, code, what the detail says; beyond what the gateway's own limits ever see
BY_THE_LIBRARY = {
    "line feed": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "malformed-request", "bare LF character"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed-request", "HTTP/1.1 request without Host:."),
    "chunk": (CHUNKED + b"x\r\n", 400, "malformed-request", "HTTP chunked encoding is syntactically incorrect."),
    "length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 413, "body-too-large", "too large value for Content-Length header."),
    "chunk size": (CHUNKED + b"fffffffffffffffff\r\n", 413, "body-too-large", "The chunk size used"),
    "target": (b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "target-too-large", "too big for the memory constraints"),
    "field": (GET + b"X: " + b"x" * 300_000 + b"\r\n\r\n", 431, "header-too-large", "The total size of the request headers"),
    "many fields": (GET + b"X: x\r\n" * 30_000 + b"\r\n", 431, "header-too-large", "The total size of the request headers"),
    "version": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version-not-supported", "Requested HTTP version is not supported."),
}


@pytest.mark.parametrize("name", BY_THE_LIBRARY)
def test_refusals_of_the_library_are_problems(gateway, name):
    data, status, code, detail = BY_THE_LIBRARY[name]
    with Wire(gateway.port) as wire:
        wire.send(data)
        told = problem(wire.answer(), status, code, named=False)
        assert detail in told["detail"] and "request_id" not in told and "<" not in told["detail"], told
        assert wire.closed()
