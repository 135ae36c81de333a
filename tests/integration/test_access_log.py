"""The access log: one JSON object a line, enough to explain a request, nothing that gives access or was said in confidence."""
import json
import re

import pytest

from answers import is_uuid7, problem
from rig import until
from wire import Wire

SECRET = "hunter2-do-not-log"


@pytest.fixture(scope="module")
def gateway(shared_rig):
    return shared_rig.gateway(emulator=shared_rig.emulator())


def line_of(gateway, request_id):
    return gateway.until_logged(lambda line: line.get("request_id") == request_id, f"request {request_id} is logged")


@pytest.mark.smoke
def test_a_command(gateway):
    answer = gateway.exec(command=f"echo {SECRET}; echo 1234567", stdin=SECRET, env={"PASSWORD": SECRET})
    assert answer.status_code == 200
    line = line_of(gateway, answer.headers["X-Request-Id"])
    assert (line["method"], line["path"], line["route"], line["status"]) == ("POST", "/-/agent/exec", "exec", 200), line
    assert (line["kid"], line["actor"], line["outcome"], line["tier"]) == (gateway.kid, "tester", "exited", "cold"), line
    assert line["exec_id"] == answer.json()["exec_id"]
    assert line["client"] == "127.0.0.1"
    assert line["bytes_in"] == len(answer.request.content) and line["bytes_out"] == len(answer.content), line
    assert line["duration_ms"] >= line["first_byte_ms"] > 0, line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]), line


def test_a_page(gateway):
    answer = gateway.get(f"/sample/stations.json?_size=1&secret={SECRET}")
    line = line_of(gateway, answer.headers["X-Request-Id"])
    assert (line["method"], line["path"], line["route"], line["status"]) == ("GET", "/sample/stations.json", "table", 200), line
    assert line["bytes_out"] == len(answer.content)


def test_refusals(gateway):
    answer = gateway.exec(token="sgt_nonsense", command="true")
    line = line_of(gateway, answer.headers["X-Request-Id"])
    assert (line["status"], line["code"]) == (401, "invalid-token"), line
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/-/agent//exec")
        ambiguous = wire.answer()
    line = line_of(gateway, ambiguous["X-Request-Id"])
    assert line["status"] == 400, line


def test_a_token_where_none_belongs(gateway):
    """The kid stays, so that the operator knows which token to revoke."""
    secret = gateway.token.rpartition("_")[2]
    for method, path in (("GET", f"/x/{gateway.token}"), ("GET", f"/{gateway.token}/{gateway.token}?{gateway.token}"),
                         ("POST", f"/-/agent/exec/{gateway.token}"), ("GET", f"/-/agent//exec/{gateway.token}"),
                         (gateway.token[:39], "/")):
        with Wire(gateway.port) as wire:
            wire.ask(method, path, body=b"{}" if method == "POST" else b"")
            line = line_of(gateway, wire.answer()["X-Request-Id"])
        assert f"sgt_{gateway.kid}_[redacted]" in line["path"] + line["method"], line
    assert secret not in gateway.out and secret[:8] not in gateway.out and secret not in gateway.log


def test_every_line_is_an_object(gateway):
    """Also with quotes, escapes, controls and bytes beyond ASCII in what strangers send."""
    for path in ("/%22%5c", "/a%0ab", "/'\"\\{}", "/%c3%bc", "/" + "x" * 5000):
        with Wire(gateway.port) as wire:
            wire.ask("GET", path, 'User-Agent: "\\\t{}', "X-Request-Id: forged", host='a.example')
            request_id = wire.answer()["X-Request-Id"]
        line = line_of(gateway, request_id)
        assert path.startswith(line["path"]) and len(line["path"]) <= 1024, line
        assert is_uuid7(line["request_id"])
    for text in gateway.out.splitlines():
        line = json.loads(text)
        assert isinstance(line, dict) and {"time", "status", "duration_ms", "request_id"} <= set(line), text


def test_a_client_that_leaves(gateway):
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/sample/readings.csv?_stream=on")
        wire.head()
        wire.reset()
    line = gateway.until_logged(lambda line: line["path"] == "/sample/readings.csv" and line.get("aborted"), "the abort is logged")
    assert line["aborted"] == "client", line


def test_a_body_that_comes_too_slowly(gateway):
    """408 to the client, in the log and in the counters, for commands and for Datasette."""
    head = f"Host: x\r\nAuthorization: Bearer {gateway.token}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    paths = "/-/agent/exec", "/sample/stations/-/insert"
    wires = {path: Wire(gateway.port) for path in paths}
    for path, wire in wires.items():
        wire.send(f"POST {path} HTTP/1.1\r\n{head}".encode())
    for path, wire in wires.items():
        answer = wire.answer()
        body = problem(answer, 408, "request-timeout")
        assert wire.closed() and is_uuid7(answer["X-Request-Id"]) and body["request_id"] == answer["X-Request-Id"]
        line = line_of(gateway, answer["X-Request-Id"])
        assert (line["status"], line["code"], line["aborted"], line["path"]) == (408, "request-timeout", "client", path), line
        assert line["bytes_in"] == 1 and line["bytes_out"] == len(answer.body), line
        assert gateway.metrics().get("spritegate_http_requests_total", route=line["route"], code="408") == 1


def test_secrets_are_in_no_log(gateway):
    """Neither tokens nor commands, inputs, queries, cookies, the pepper or the API token."""
    gateway.exec(command=f"echo {SECRET}", stdin=SECRET)
    gateway.exec(token=gateway.token[:-1] + "x", command=f"echo {SECRET}")
    gateway.http.post("/-/agent/exec?x=" + SECRET, json={"command": SECRET, "nope": SECRET}, headers={"Authorization": f"Bearer {gateway.token}"})
    gateway.get("/sample?password=" + SECRET, headers={"Authorization": f"Bearer {gateway.token}", "Cookie": "ds_actor=" + SECRET,
                                                       "X-Datasette-Authorization": "Bearer dstok_" + SECRET})
    until(lambda: len(gateway.access_log()) >= 4, "the requests are logged")
    for where, text in (("the access log", gateway.out), ("the log", gateway.log)):
        for what in (SECRET, gateway.token, gateway.token[21:], gateway.settings["SPRITEGATE_PEPPER"], gateway.settings["SPRITEGATE_SPRITES_TOKEN"]):
            assert what not in text, f"{what[:12]}… is in {where}"


def test_log_of_the_program_is_json_too(gateway):
    for text in gateway.log.splitlines():
        line = json.loads(text)
        assert {"time", "level", "message"} <= set(line), text


@pytest.mark.parametrize("where", ["stderr", "off", "file"])
def test_where_it_goes(rig, tmp_path, where):
    path = tmp_path / "access.log"
    gateway = rig.gateway(token=False, access_log=str(path) if where == "file" else where)
    request_id = gateway.get("/-/versions.json").headers["X-Request-Id"]
    gateway.signal(15)
    assert gateway.wait() == 0
    assert (request_id in gateway.log) is (where == "stderr")
    assert request_id not in gateway.out
    assert path.exists() is (where == "file")
    if where == "file":
        assert request_id in path.read_text()
        assert path.stat().st_mode & 0o007 == 0, "everybody may read the log"
