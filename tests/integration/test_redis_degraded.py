"""REDIS_DOWN=degrade: while Redis is away a little of what it has just allowed goes on, without network, and is booked once afterwards."""
import concurrent.futures
import json

import pytest

from answers import problem
from processes import go_on, new_mark, running
from rig import until
from test_settlements_file import booked
from test_status_page import state as status

FAST = {"rate": "6000/1m", "burst": 1000}       # a quarter of it is still no hindrance


@pytest.fixture
def store(rig):
    return rig.redis()


@pytest.fixture
def start(rig, store, tmp_path):
    def start_one(token=FAST, **settings):
        settings = {"redis_down": "degrade", "degraded_trust_seconds": 300, "access_log": tmp_path / "access", "workers": 2,
                    "audit_log": tmp_path / "audit", "drain_seconds": 1, **settings}
        return rig.gateway(redis=store, token=token, **settings)
    return start_one


def until_away(gateway):
    until(lambda: gateway.metrics().get("spritegate_redis_up") == 0, "Redis is seen to be away")
    until(lambda: gateway.exec(command="true", session="none").status_code == 503, "and is not asked")


def until_booked(gateway):
    until(lambda: gateway.metrics().get("spritegate_exec_settlements_pending") == 0, "it is booked")
    until(lambda: gateway.metrics().get("spritegate_exec_degraded_unbooked_seconds") == 0, "and known to be")


def results(gateway, name):
    return gateway.metrics().get("spritegate_exec_degraded_total", result=name) or 0


def away(gateway, store):
    """Both workers lose their connections; what they say first may be that it broke."""
    store.kill()
    until(lambda: gateway.health().json().get("exec") == "degraded", "health says so")
    until_away(gateway)


def until_granted(gateway, **fields):
    """Of another worker, whose connection may be found broken by the question itself."""
    answers = []

    def granted():
        answers.append(gateway.exec(**{"command": "true", **fields}))
        return answers[-1].status_code == 200
    until(granted, "it is let in")
    return answers[-1]


def test_what_was_allowed_goes_on_and_is_booked_once(rig, start, store, tmp_path):
    gateway = start(token={**FAST, "egress": "pypi.org", "max_file": "1MiB"})
    assert "Exec-Degraded" not in gateway.exec(command="true").headers
    gateway.until_settled()
    before = booked(store.client, gateway.kid)
    away(gateway, store)
    answer = until_granted(gateway, command="ulimit -Hf; sleep 0.3")
    assert answer.headers["Exec-Degraded"] == "?1" and answer.json()["stdout"] == "1024\n"
    assert "RateLimit" not in answer.headers
    exec_id = answer.json()["exec_id"]
    assert results(gateway, "granted") == 1
    shown = status(gateway)
    assert shown["redis"] == "down" and shown["degraded"]["granted"] == 1 and "unbooked_s" in shown["degraded"], shown["degraded"]
    assert gateway.metrics().get("spritegate_exec_decisions_total", outcome="allow", reason="degraded") == 1

    def written(log):
        lines = (tmp_path / log).read_text(encoding="utf-8").split("\n")[:-1]
        return [one for one in map(json.loads, lines) if one.get("exec_id") == exec_id]
    until(lambda: [one.get("degraded") for one in written("access")] == [True], "the access log says so")

    def audited():
        return {one["record"]: one for one in written("audit")}
    until(lambda: len(audited()) == 2, "the audit has both records")
    assert (audited()["decision"]["decision"], audited()["decision"]["reason"]) == ("allow", "degraded")
    assert audited()["run"]["egress"] in (None, "none", ""), audited()["run"]

    again = store.again()
    rig.add(again, again.kill)
    until_booked(gateway)
    assert status(gateway)["degraded"] == {"granted": 1, "unbooked_s": 0}
    after = booked(again.client, gateway.kid)
    assert (after["reqs"], after["held"]) == (before["reqs"] + 1, 0)
    assert after["used"] - before["used"] >= 300 and after["out"] == before["out"] + 5
    until(lambda: gateway.get("/-/agent/exec/" + exec_id, headers={"Authorization": f"Bearer {gateway.token}"}).status_code == 200, "what it ended with is known")
    assert "Exec-Degraded" not in until_granted(gateway).headers


def test_what_is_not_known_does_not_run(rig, start, store):
    gateway = start()
    gateway.run("true")
    other = rig.mint(store)["token"]
    away(gateway, store)
    for fields, word in (({"token": other, "command": "true"}, "just allowed"), ({"argv": ["ls"]}, "just allowed"),
                         ({"command": "true", "env": {"A": "1"}}, "just allowed"), ({"command": "true", "session": "s"}, "sessions"),
                         ({"command": "true", "headers": {"Idempotency-Key": '"k"'}}, "idempotency"),
                         ({"command": "echo 1", "stdout_to": {"datasette": "/data/-/create", "table": "t"}}, "rows")):
        def refused(fields=fields, word=word):
            answer = gateway.exec(**fields)
            body = problem(answer, 503, "policy-unavailable")
            assert int(answer.headers["Retry-After"]) >= 1 and "Exec-Degraded" not in answer.headers
            return word in body["detail"]
        until(refused, f"{fields} is refused, and why")
    assert results(gateway, "granted") == 0


def test_rate_concurrency_and_cap(start, store):
    gateway = start(token={"rate": "4/1d", "burst": 8}, degraded_budget_seconds=62)
    mark = new_mark()
    gateway.run("true", timeout_seconds=30)
    away(gateway, store)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(until_granted, gateway, command=f"sleep {mark}", timeout_seconds=30)
        until(lambda: running(mark), "the command runs")
        until(lambda: "one command" in problem(gateway.exec(command="true", timeout_seconds=1), 503, "policy-unavailable")["detail"],
              "one at a time")
        until(lambda: "used up" in problem(gateway.exec(command="true", timeout_seconds=30), 503, "policy-unavailable")["detail"],
              "no more than half of the cap")
        go_on(mark)
        busy.result()
    until_granted(gateway, timeout_seconds=1)
    until(lambda: "fraction" in problem(gateway.exec(command="true", timeout_seconds=1), 503, "policy-unavailable")["detail"],
          "a quarter of the burst")


def test_revoked_meanwhile(rig, start, store):
    """Nobody can say so to a Redis that is away; when it is back nothing is believed any more."""
    gateway = start()
    gateway.run("true")
    away(gateway, store)
    until_granted(gateway)
    again = store.again()
    rig.add(again, again.kill)
    again.client.hset("sg:{g}:k:" + gateway.kid, "status", "revoked")
    until(lambda: gateway.exec(command="true").status_code == 401, "it is refused")
    until_booked(gateway)
    again.kill()
    until_away(gateway)
    until(lambda: "just allowed" in problem(gateway.exec(command="true"), 503, "policy-unavailable")["detail"],
          "what was refused at last is not let in")


def test_trust_ends(start, store):
    gateway = start(degraded_trust_seconds=1)
    gateway.run("true")
    away(gateway, store)
    until(lambda: gateway.exec(command="true").json().get("detail", "").endswith("just allowed this token may run."), "nothing is believed any more")


def test_booked_after_a_restart(rig, start, store, tmp_path):
    place = tmp_path / "settlements"
    gateway = start(settlements_file=place)
    gateway.run("true")
    gateway.until_settled()
    before = booked(store.client, gateway.kid)
    away(gateway, store)
    until_granted(gateway, command="sleep 0.2")
    gateway.stop_at_once()
    text = place.read_text(encoding="utf-8")
    line, = (json.loads(line) for line in text.splitlines())
    assert (line["version"], line["kid"]) == (2, gateway.kid)
    again = store.again()
    rig.add(again, again.kill)
    for _ in range(2):
        place.write_text(text, encoding="utf-8")
        second = rig.gateway(redis=again, token=False, settlements_file=place)
        until(lambda: place.stat().st_size == 0, "the file is used up")
        second.stop_at_once()
        after = booked(again.client, gateway.kid)
        assert after["reqs"] == before["reqs"] + 1 and after["used"] >= before["used"] + 200, "once, however often it is read"


def test_off_unless_asked_for(start, store):
    gateway = start(redis_down="refuse")
    gateway.run("true")
    store.kill()
    until_away(gateway)
    answer = gateway.exec(command="true")
    body = problem(answer, 503, "policy-unavailable")
    assert "Until" not in body["detail"] and "exec" not in gateway.health().json()
    assert status(gateway)["degraded"] is None


@pytest.mark.parametrize("settings", [{"redis_down": "allow"}, {"pool_shared": 1}, {"degraded_trust_seconds": 301}])
def test_settings_that_do_not_fit(rig, store, settings):
    gateway = rig.gateway(redis=store, wait=False, token=False, **{"redis_down": "degrade", **settings})
    assert gateway.wait() != 0
    assert "redis_down: " in gateway.log or "degraded_trust_seconds: 301 is outside" in gateway.log
