"""Requests that two readers could take differently are refused before Datasette sees them; the others reach it in one reading."""
import time

import pytest

from answers import problem
from observer import Recorder, observe
from rig import until
from vectors import CLOSED, PASS, REFUSE, REQUESTS
from wire import Wire


@pytest.fixture(scope="module")
def recorder(shared_rig):
    recorder = Recorder()
    return shared_rig.add(recorder, recorder.close)


@pytest.fixture(scope="module")
def gateway(shared_rig, recorder):
    return shared_rig.gateway(datasette_url=recorder.url, token=False)


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
    if row.code:
        problem(seen.answers[0], row.status, row.code)
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
    for size in (30_000, 33_000, 60_000, 100_000, 200_000, 1_000_000):
        for pause in (0, 0.002, 0.05):
            wire = Wire(gateway.port)
            wire.ask("POST", "/", "Transfer-Encoding: chunked")
            time.sleep(pause)
            wire.socket.settimeout(0.2)
            try:
                wire.send(b"3;" + b"x" * size + b"\r\nabc\r\n0\r\n\r\n")
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
