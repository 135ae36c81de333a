"""The page on the admin listener: what it shows, who may watch it, who may cancel. In a browser: tests/browser."""
import base64
import concurrent.futures
import contextlib
import hashlib
import json
import os
import re

import pytest

from answers import problem
from processes import running
from rig import until

ADMIN_TOKEN = "an-admin-token-of-the-tests-32/~+="
SECRET = "hunter2-hunter2"


@pytest.fixture(scope="module")
def gateway(shared_rig):
    gateway = shared_rig.gateway(emulator=shared_rig.emulator(), pool_hot=2, admin_token=ADMIN_TOKEN, token={"budget": "600s/day"})
    gateway.until_ready()
    return gateway


@pytest.fixture
def executor():
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool


@contextlib.contextmanager
def watching(gateway):
    """The events, as objects."""
    with gateway.admin_http.stream("GET", "/status/events") as answer:
        assert answer.status_code == 200, answer.status_code
        assert answer.headers["Content-Type"] == "text/event-stream" and answer.headers["Cache-Control"] == "no-store"
        yield (json.loads(line.removeprefix("data:")) for line in answer.iter_lines() if line)


def state(gateway):
    with watching(gateway) as events:
        return next(events)


def begin(gateway, pool, mark, before="", **fields):
    """A command that runs until it is ended: its answer to come."""
    answer = pool.submit(gateway.exec, command=f"{before}sleep {mark}", timeout_seconds=200, **fields)
    until(lambda: running(mark), "the command runs")
    return answer


def cancel(gateway, exec_id, token=ADMIN_TOKEN):
    return gateway.admin_http.delete(f"/status/commands/{exec_id}", headers={"Authorization": f"Bearer {token}"} if token else {})


@pytest.mark.smoke
@pytest.mark.parametrize("path", ["/", "/status"])
def test_the_page_needs_nothing_else(gateway, path):
    answer = gateway.admin_http.get(path)
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.findall(r'(?:src|href)="(?!data:,|/metrics)[^"]*"', answer.text), "it refers to something"
    head = gateway.admin_http.head(path)
    assert head.status_code == 200 and head.content == b"" and head.headers["Content-Length"] == str(len(answer.content))


def test_its_policy_allows_its_own_style_and_script_only(gateway):
    answer = gateway.admin_http.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))

    def digest(name):
        own = re.findall(rf"<{name}>(.*?)</{name}>", answer.text, re.DOTALL)
        assert len(own) == 1
        return "'sha256-" + base64.b64encode(hashlib.sha256(own[0].encode()).digest()).decode() + "'"

    assert policy == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'", "connect-src": "'self'",
                      "img-src": "data:", "style-src": digest("style"), "script-src": digest("script")}
    assert "style=" not in answer.text and not re.search(r"\son\w+=", answer.text)


@pytest.mark.smoke
def test_what_it_shows(gateway, executor):
    gateway.run("exit 3")
    gateway.exec(command="true", env={"A": 1})
    pending = begin(gateway, executor, f"31350.{os.getpid()}")
    shown = state(gateway)
    assert (shown["instance"], shown["draining"], shown["redis"], shown["datasette"], shown["sprites"]) == (gateway.instance, False, "up", "up", "open")
    assert shown["pool"]["states"]["leased"] == 1 and shown["pool"]["hot_target"] == 2, shown["pool"]
    [one] = shown["running"]
    assert one["kid"] == gateway.kid and one["phase"] == "running" and 0 < one["timeout_s"] <= 200, one
    last = shown["recent"][0]
    assert (last["outcome"], last["exit_code"], last["kid"]) == ("exited", 3, gateway.kid) and last["tier"] in ("hot", "warm", "cold"), last
    assert sum(tier["count"] for tier in shown["tiers"]) >= 2
    assert all(0 <= tier["p50_ms"] <= tier["p99_ms"] for tier in shown["tiers"] if tier["count"]), shown["tiers"]
    assert [one["total"] for one in shown["refusals"] if one["reason"] == "invalid_request"] == [1]
    [budget] = shown["budgets"]
    assert budget["kid"] == gateway.kid and budget["limit_s"] == 600 and 0 < budget["left_s"] <= 400, budget
    assert len(shown["history"]["hot"]) >= 1 and shown["history"]["every_s"] == 5
    assert cancel(gateway, one["exec_id"]).status_code == 202
    pending.result()

    def left():
        gateway.run("true")     # whose answer tells anew what is left
        return state(gateway)["budgets"][0]["left_s"]

    until(lambda: 400 < left() < 600, "what was not used is back")


def test_no_secret_is_shown(gateway):
    gateway.run(f"echo {SECRET}", stdin=SECRET, env={"A": SECRET})
    with watching(gateway) as events:
        text = json.dumps([next(events), next(events)])
    for what in (SECRET, gateway.token, gateway.token[21:], ADMIN_TOKEN, "tester"):
        assert what not in text


def test_it_is_live(gateway):
    gateway.run("true")
    with watching(gateway) as events:
        before = next(events)
        ran = gateway.run("true")
        assert any(ran.exec_id == shown["recent"][0]["exec_id"] for shown in events)
    assert before["recent"][0]["exec_id"] != ran.exec_id


@pytest.mark.smoke
def test_cancelling(gateway, executor):
    pending = begin(gateway, executor, f"31351.{os.getpid()}")
    [one] = state(gateway)["running"]
    before = gateway.metrics().get("spritegate_exec_killed_total", reason="operator")
    answer = cancel(gateway, one["exec_id"])
    assert answer.status_code == 202 and answer.json() == {"ok": True, "state": "canceling"}
    ended = pending.result().json()
    assert ended["outcome"] == "canceled" and ended["exec_id"] == one["exec_id"]
    until(lambda: not running(f"31351.{os.getpid()}"), "the process is gone")
    assert gateway.metrics().get("spritegate_exec_killed_total", reason="operator") == before + 1
    problem(cancel(gateway, one["exec_id"]), 404, "exec-not-found")
    assert state(gateway)["running"] == []


@pytest.mark.parametrize("number, before, times, stdout, check", [
    (31353, "trap 'echo tidied' TERM; ", 1, "tidied\n", "counted"), (31354, "trap '' TERM; ", 2, "", "none")], ids=["by TERM", "again"])
def test_how_it_ends(gateway, executor, number, before, times, stdout, check):
    """By TERM; the second time by KILL, and its end is not waited for."""
    pending = begin(gateway, executor, f"{number}.{os.getpid()}", before)
    [one] = state(gateway)["running"]
    for _ in range(times):
        assert cancel(gateway, one["exec_id"]).status_code == 202
    ended = pending.result().json()
    assert (ended["outcome"], ended["stdout"], ended["output_check"]) == ("canceled", stdout, check)
    until(lambda: not running(f"{number}.{os.getpid()}"), "the process is gone")


def test_nobody_else_cancels(gateway, executor):
    pending = begin(gateway, executor, f"31352.{os.getpid()}")
    [one] = state(gateway)["running"]
    for token, code in ((None, "missing-token"), ("x" * 32, "invalid-token"), (gateway.token, "invalid-token"), (ADMIN_TOKEN[:-1], "invalid-token")):
        answer = cancel(gateway, one["exec_id"], token)
        assert answer.status_code == 401 and answer.json()["code"] == code
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="status"'
    path = f"/status/commands/{one['exec_id']}"
    for method in ("GET", "POST", "OPTIONS"):
        answer = gateway.admin_http.request(method, path, headers={
            "Authorization": f"Bearer {ADMIN_TOKEN}", "Origin": "https://evil.example", "Access-Control-Request-Method": "DELETE"})
        problem(answer, 405, "method-not-allowed")
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")], "another origin may send the token"
    assert "Access-Control-Allow-Origin" not in gateway.admin_http.get("/status/events/", headers={"Origin": "https://evil.example"}).headers
    assert not pending.done() and running(f"31352.{os.getpid()}")
    assert cancel(gateway, one["exec_id"]).status_code == 202
    assert pending.result().json()["outcome"] == "canceled"
    assert ADMIN_TOKEN not in gateway.log + gateway.out


def test_without_an_admin_token_nobody_cancels(rig):
    gateway = rig.gateway(token=False)
    assert state(gateway)["may_cancel"] is False
    for token in (None, "", "x" * 32):
        problem(cancel(gateway, "0193b3c0-0000-7000-8000-000000000000", token), 403, "insufficient-scope")


@pytest.mark.parametrize("token, why", [("short", "outside|characters"), ("x" * 31 + " x", "bearer"), ("x" * 31 + ",x", "bearer"), ("ä" * 32, "bearer")])
def test_an_admin_token_that_nobody_could_send_is_refused(rig, token, why):
    gateway = rig.gateway(token=False, wait=False, admin_token=token)
    assert gateway.wait() in (1, 2)
    assert re.search(f"admin_token.*({why})", gateway.log) and token not in gateway.log


def test_watchers_are_bounded(gateway):
    with contextlib.ExitStack() as stack:
        until(lambda: can_watch(gateway), "earlier watchers have gone")
        streams = []
        for _ in range(30):
            answer = stack.enter_context(gateway.admin_http.stream("GET", "/status/events"))
            if answer.status_code != 200:
                break
            streams.append(answer.iter_lines())
        assert len(streams) == 16
        answer.read()
        problem(answer, 503, "temporary-reduced-capacity")
        for stream in streams:
            assert next(stream).startswith("data:{")
        assert gateway.admin_http.get("/health/live").status_code == 200
    until(lambda: can_watch(gateway), "those that left make room")


def can_watch(gateway):
    with gateway.admin_http.stream("GET", "/status/events") as answer:
        return answer.status_code == 200


def test_a_watched_gateway_ends_in_order(rig):
    gateway = rig.gateway(token=False, drain_seconds=8)
    with watching(gateway) as events:
        next(events)
        gateway.signal(15)
        assert any(shown["draining"] for shown in events)
        assert gateway.wait() == 0
