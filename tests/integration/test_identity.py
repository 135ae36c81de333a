"""Callers without a token, who are to Datasette somebody that may run commands."""
import concurrent.futures
import itertools
import json

import pytest

from answers import Ran, check_limits, problem
from identity import Datasette, Door, api_token, cookie
from mcp import PATH, Called
from processes import new_mark, running
from rig import LARGER, until
from wire import Wire, exec_request

ADMIN = {"id": "ann", "role": "admin"}
ACTION = {"a": ["vi", "spritegate-exec"]}


@pytest.fixture(scope="module")
def datasette(shared_rig, tmp_path_factory):
    part = Datasette(tmp_path_factory.mktemp("datasette"))
    return shared_rig.add(part, part.kill)


@pytest.fixture(scope="module")
def door(shared_rig, datasette):
    return Door(shared_rig, datasette.url, pool_hot=2, identity_cache_seconds=0)


@pytest.fixture
def fake(rig):
    """In place of Datasette, and a gateway before it."""
    upstream = rig.upstream()
    upstream.door = Door(rig, upstream.url)
    return upstream


def says(exchange, actor):
    exchange.reply("200 OK", "Content-Type: application/json", body=json.dumps({"ok": True, "actor": actor}).encode())


# -- who may -------------------------------------------------------------------------------

def test_a_cookie_of_datasette(door):
    answer = door.post(cookie(ADMIN), command="cat", stdin="hello")
    ran = Ran(answer)
    assert (ran.outcome, ran.stdout) == ("exited", "hello")
    check_limits(ran.headers)
    line = door.gateway.until_logged(lambda line: line.get("exec_id") == ran.exec_id)
    assert (line["actor"], line["policy"], line["policy_version"] >= 1) == ("ann", "staff", True), line
    assert line["kid"][0] == "@" and len(line["kid"]) == 16
    quota = door.quota(cookie(ADMIN)).json()
    assert (quota["kid"], quota["actor"], quota["policy"], quota["concurrency"]["limit"]) == (line["kid"], "ann", "staff", 50), quota


def test_what_a_policy_does_not_say_is_as_for_tokens(door):
    quota = door.quota(cookie({"id": "guest 1", "guest": True})).json()
    assert (quota["actor"], quota["policy"]) == ("guest%201", "guests")
    assert (quota["rate"]["limit"], quota["rate"]["window_seconds"], quota["rate"]["burst"]) == (60, 60, 10), quota
    assert (quota["concurrency"]["limit"], quota["max_sessions"], quota["egress"]) == (3, 0, []), quota


def test_each_actor_has_limits_of_its_own_and_shares_none(door):
    for name in ("one", "two"):
        headers = cookie({"id": name, "few": True})
        Ran(door.post(headers))
        assert problem(door.post(headers), 429, "quota-exceeded")["violated-policies"] == ["rate"]


@pytest.mark.parametrize("restrictions, runs", [
    (None, True), (ACTION, True), ({}, False), ({"a": ["vi", "es"]}, False), ({"d": {"_memory": ["spritegate-exec"]}}, False)])
def test_an_api_token_and_its_restrictions(door, datasette, restrictions, runs):
    headers = api_token("tom", restrictions)
    known = datasette.http.get("/-/actor.json", headers=headers).json()["actor"]
    assert known["id"] == "tom" and known.get("_r") == restrictions, known
    answer = door.post(headers)
    if runs:
        assert Ran(answer).stdout == "hello\n"
    else:
        problem(answer, 403, "identity-denied")
    problem(door.post(api_token("eve", restrictions)), 403, "identity-denied")


def test_nobody_that_datasette_knows(door):
    for headers in ({"Cookie": "a=b"}, {"Cookie": "ds_actor=forged"}, {"Authorization": "Bearer something"}, {"Authorization": "Basic YTpi"}):
        problem(door.post(headers), 401, "missing-token")
        problem(door.quota(headers), 401, "missing-token")
    problem(door.post({"Authorization": "Bearer dstok_forged"}), 401, "invalid-token")
    problem(door.post({**cookie(ADMIN), "Authorization": "Bearer dstok_forged"}), 401, "invalid-token")
    problem(door.post({}), 401, "missing-token")
    for actor in ({"id": "ann"}, {"role": "admin"}, {"id": "x" * 129, "role": "admin"}, {"id": ["ann"], "role": "admin"}, {}):
        problem(door.post(cookie(actor)), 403 if actor else 401, "identity-denied" if actor else "missing-token")


def test_it_is_off_unless_it_was_asked_for(rig, datasette):
    gateway = rig.gateway(datasette_url=datasette.url)
    answer = gateway.http.post("/-/agent/exec", headers=cookie(ADMIN), json={"command": "true"})
    problem(answer, 401, "missing-token")
    assert gateway.metrics().get("spritegate_identity_total") == 0


def test_a_token_wins_and_nothing_comes_after_it(door):
    asked = door.results()
    Ran(door.gateway.exec(command="true", headers=cookie(ADMIN)))
    line = door.gateway.until_logged(lambda line: line["status"] == 200 and line.get("actor") == "tester")
    assert line["kid"] == door.gateway.kid
    for token in (door.gateway.token[:-1], door.gateway.token + "0", "sgt_", "sgt_x"):
        problem(door.gateway.exec(command="true", token=token, headers=cookie(ADMIN)), 401, "invalid-token")
    for field in ("Basic sgt_" + "x" * 54, "sgt_" + "x" * 54):
        problem(door.post({**cookie(ADMIN), "Authorization": field}), 401, "missing-token")
    body = b'{"command":"true"}'
    with Wire(door.gateway.port) as wire:
        wire.send(exec_request(door.gateway.token, body, "Authorization: Bearer dstok_x", f"Cookie: {cookie(ADMIN)['Cookie']}"))
        assert wire.answer().json()["code"] == "invalid-authorization"
    assert door.results() == asked, "Datasette was asked although there was a token"


def test_a_policy_that_is_not_there(door, datasette, rig):
    other = rig.gateway(datasette_url=datasette.url, token=False, identity_rules='[{"policy": "nowhere", "allow": {"role": "admin"}}]')
    answer = other.http.post("/-/agent/exec", headers=cookie(ADMIN), json={"command": "true"})
    problem(answer, 403, "identity-denied")
    assert "its actor is not there or cannot be used" in other.log
    door.set_policy("nowhere", "--max-run", "60s")
    assert other.http.post("/-/agent/exec", headers=cookie(ADMIN), json={"command": "true"}).status_code == 200


# -- pages of other origins ------------------------------------------------------------------

FOREIGN = "http://evil.example"


def test_the_rule_against_other_origins_is_datasettes(door, datasette):
    """The same requests, to a path of Datasette that there is not: 404 behind the rule, 403 before it."""
    own, mine, bearer = f"http://127.0.0.1:{door.gateway.port}", cookie(ADMIN), api_token("ann")
    rows = [{**mine, **more} for more in (
        {}, {"Origin": FOREIGN}, {"Origin": own}, {"Origin": "null"}, {"Origin": own.replace("http:", "https:")},
        {"Origin": own + "1"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site", "Origin": own},
        {"Sec-Fetch-Site": "same-origin", "Origin": FOREIGN}, {**bearer, "Origin": FOREIGN})]
    rows += [bearer, {**bearer, "Origin": FOREIGN}, {**bearer, "Sec-Fetch-Site": "cross-site"},
             {"Authorization": "Basic YTpi", "Origin": FOREIGN}, {"Authorization": "Basic YTpi"}]
    refused = []
    for headers in rows:
        behind = datasette.http.post("/nothing-there", headers={**headers, "Host": f"127.0.0.1:{door.gateway.port}"}).status_code
        before = door.results()
        answer = door.post(headers)
        code = "" if answer.status_code == 200 else answer.json()["code"]
        assert (behind == 403) == (code == "cross-origin-denied"), (headers, behind, answer.status_code, answer.text)
        if code == "cross-origin-denied":
            problem(answer, 403, code)
            assert door.results() == before, "Datasette was asked who it is"
            refused.append(headers)
    assert len(refused) == 9


def test_no_other_origin_deletes_or_reads(door):
    for path in ("/-/agent/exec/sessions/x", "/-/agent/exec/01234567-89ab-7def-8123-456789abcdef"):
        problem(door.gateway.http.delete(path, headers={**cookie(ADMIN), "Origin": FOREIGN}), 403, "cross-origin-denied")
    answer = door.quota({**cookie(ADMIN), "Origin": FOREIGN})
    assert answer.status_code == 200 and "Access-Control-Allow-Credentials" not in answer.headers
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_token_is_no_matter_of_origins(door):
    Ran(door.gateway.exec(command="true", headers={**cookie(ADMIN), "Origin": FOREIGN, "Sec-Fetch-Site": "cross-site"}))


# -- what follows from it ------------------------------------------------------------------------

def test_commands_belong_to_the_actor(door):
    ran = Ran(door.post(cookie(ADMIN)))
    path = f"/-/agent/exec/{ran.exec_id}"
    look = until(lambda: (got := door.gateway.get(path, headers=cookie(ADMIN)).json())["state"] == "finished" and got, "it is kept")
    assert look["stdout"] == "hello\n"
    problem(door.gateway.get(path, headers=cookie({**ADMIN, "id": "bob"})), 404, "exec-not-found")
    problem(door.gateway.get(path, headers={"Authorization": f"Bearer {door.gateway.token}"}), 404, "exec-not-found")
    once = {"Idempotency-Key": ran.exec_id}
    first = Ran(door.post({**cookie(ADMIN), **once}))
    again = until(lambda: (got := door.post({**cookie(ADMIN), **once})).status_code == 200 and got, "it is replayed")
    assert again.json()["exec_id"] == first.exec_id and again.headers["Idempotency-Replayed"] == "true"


def test_sessions_are_kept(door):
    headers = cookie({**ADMIN, "id": "kept"})
    Ran(door.post(headers, command="echo here > note", session="s"))
    until(lambda: door.gateway.get("/-/agent/exec/sessions", headers=headers).json()["sessions"][0]["busy"] is False, "it is idle")
    assert Ran(door.post(headers, command="cat note", session="s")).stdout == "here\n"
    until(lambda: door.gateway.http.delete("/-/agent/exec/sessions/s", headers=headers).status_code == 200, "it can be closed")


def test_tools_for_whom_datasette_knows(door):
    """The MCP endpoint too: the actor's policy, sessions and credentials."""
    def ask(method, params, headers):
        return door.gateway.http.post(PATH, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})

    def call(tool, **arguments):
        called = Called(answer := ask("tools/call", {"name": tool, "arguments": arguments}, cookie(ADMIN)), answer.json())
        assert not called.is_error, called.json
        return called
    tools = ask("tools/list", {}, cookie(ADMIN)).json()["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["run_command", "read_file", "write_file"]
    assert tools[0]["_meta"]["executionPolicy"]["concurrency"] == {"limit": 50}
    assert call("write_file", session="tools", path="who", datasette="/-/actor.json").exit_code == 0
    assert json.loads(call("read_file", session="tools", path="who").stdout)["actor"]["id"] == "ann"
    exec_id = call("run_command", command="true").exec_id
    line = door.gateway.until_logged(lambda line: line.get("exec_id") == exec_id)
    assert (line["actor"], line["policy"]) == ("ann", "staff"), line
    problem(ask("tools/list", {}, {}), 401, "missing-token")
    door.gateway.http.delete("/-/agent/exec/sessions/tools", headers=cookie(ADMIN))


@pytest.mark.parametrize("words", [("--actor", "killed"), ("--kid", None)])
def test_an_operator_ends_what_runs(door, words):
    headers, mark = cookie({**ADMIN, "id": "killed"}), new_mark()
    kid = door.quota(headers).json()["kid"]
    words = [word or kid for word in words]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(door.post, headers, command=f"sleep {mark}", timeout_seconds=100)
        until(lambda: running(mark), "it runs")
        listed = json.loads(door.cli("lease", "list", "--json").stdout)
        assert kid in {lease["kid"] for lease in listed}, listed
        killed = door.cli("lease", "kill", *words, "--yes")
        assert killed.returncode == 0 and kid in killed.stdout, killed
        assert Ran(answer.result()).outcome == "canceled"


def test_sources_are_read_with_the_same_credentials(door):
    def actor_of(headers):
        return json.loads(Ran(door.post(headers, command="cat", stdin={"datasette": "/-/actor.json"})).stdout)["actor"]
    assert actor_of(cookie(ADMIN))["id"] == "ann"
    both = {**cookie(ADMIN), "X-Datasette-Authorization": api_token("bob")["Authorization"]}
    assert actor_of(both)["id"] == "bob"


def test_it_is_in_the_audit(rig, datasette, tmp_path):
    path = tmp_path / "audit.log"
    door = Door(rig, datasette.url, audit_log=path)
    ran = Ran(door.post(cookie(ADMIN)))
    problem(door.post(cookie({"id": "eve"})), 403, "identity-denied")
    problem(door.post({**cookie(ADMIN), "Origin": FOREIGN}), 403, "cross-origin-denied")

    def records():
        return [json.loads(line) for line in path.read_text().splitlines()]
    until(lambda: len(records()) == 4, "all is recorded")
    by_code = {line["code"]: line for line in records() if line["record"] == "decision"}
    assert (by_code[None]["actor"], by_code[None]["policy"], by_code[None]["decision"]) == ("ann", "staff", "allow")
    assert (by_code["identity-denied"]["actor"], by_code["identity-denied"]["reason"]) == ("eve", "identity")
    assert (by_code["cross-origin-denied"]["actor"], by_code["cross-origin-denied"]["reason"]) == (None, "cross_origin")
    run = next(line for line in records() if line["record"] == "run")
    assert (run["exec_id"], run["actor"], run["kid"]) == (ran.exec_id, "ann", by_code[None]["kid"])
    for text in (path.read_text(), door.gateway.out, door.gateway.log):
        assert cookie(ADMIN)["Cookie"].partition("=")[2] not in text and "echo hello" not in text


def test_one_round_trip(rig, datasette):
    redis = rig.redis()
    door = Door(rig, datasette.url, redis=redis)
    kid = door.quota(cookie(ADMIN)).json()["kid"]
    with redis.client.monitor() as monitor:
        for _ in range(10):
            assert door.quota(cookie(ADMIN)).status_code == 200
        redis.client.echo("the end")
        sent = list(itertools.takewhile(lambda one: "the end" not in one["command"], monitor.listen()))
    about = [one["command"].split()[0] for one in sent if kid in one["command"] and one["client_type"] != "lua"]
    assert about == ["EVALSHA"] * 10, about
    assert not redis.client.keys("sg:{g}:k:@*"), "there is no record of whom Datasette knows"


def test_too_many_wrong_ones_from_one_address(rig, datasette):
    door = Door(rig, datasette.url, wrong_token_burst=3)
    problem(door.quota({"Cookie": "a=0"}), 401, "missing-token")
    numbers = itertools.count(1)
    answer = until(lambda: (got := door.quota({"Cookie": f"a={next(numbers)}"})).status_code != 401 and got, "it is too many")
    problem(answer, 429, "abnormal-usage")
    assert door.quota(cookie(ADMIN)).status_code == 200


# -- Datasette fails ------------------------------------------------------------------------------------

def cut(exchange):
    exchange.reply("200 OK", "Content-Length: 100", body=b'{"ok":true,"actor":{"id":"ann","role":"admin"}}', length=False)
    exchange.hang_up()


GOOD = json.dumps({"ok": True, "actor": ADMIN}).encode()
BROKEN = {
    "500": lambda exchange: exchange.reply("500 No", body=GOOD),
    "404": lambda exchange: exchange.reply("404 No", body=GOOD),
    "204": lambda exchange: exchange.reply("204 No Content", length=False),
    "closed": lambda exchange: exchange.hang_up(),
    "cut": cut,
    "no HTTP": lambda exchange: exchange.send(b"hello\r\n\r\n"),
    "no JSON": lambda exchange: exchange.reply(body=b"<html>"),
    "no object": lambda exchange: exchange.reply(body=b"[" + GOOD + b"]"),
    "no actor": lambda exchange: exchange.reply(body=b'{"ok":true}'),
    "not ok": lambda exchange: exchange.reply(body=GOOD.replace(b"true", b"false")),
    "twice": lambda exchange: exchange.reply(body=b'{"actor":{"id":"eve"},' + GOOD[1:]),
    "too long": lambda exchange: exchange.reply(body=GOOD[:-1] + b" " * 70_000 + b"}"),
}


@pytest.fixture(scope="module")
def failing(shared_rig):
    upstream = shared_rig.upstream()
    upstream.door = Door(shared_rig, upstream.url, identity_cache_seconds=60)
    return upstream


@pytest.mark.parametrize("how", BROKEN)
def test_what_says_nothing_lets_nobody_in(failing, how):
    failing.on("/-/actor.json")(BROKEN[how])
    answer = failing.door.post({"Cookie": f"how={how}"})
    assert problem(answer, 503, "identity-unavailable")["code"] and int(answer.headers["Retry-After"]) >= 1
    # It is not remembered.
    failing.on("/-/actor.json")(lambda exchange: says(exchange, ADMIN))
    assert failing.door.quota({"Cookie": f"how={how}"}).status_code == 200


@pytest.mark.parametrize("status", [301, 302, 307, 403])
def test_who_is_sent_elsewhere_is_not_followed(failing, status):
    failing.on("/-/actor.json")(lambda exchange: exchange.reply(f"{status} X", "Location: /-/there", body=GOOD))
    failing.on("/-/there")(lambda exchange: says(exchange, ADMIN))
    problem(failing.door.post({"Cookie": f"status={status}"}), 403, "identity-denied")
    assert failing.asked("/-/there") == []


@pytest.mark.parametrize("how", ["silent", "drop by drop"])
def test_a_slow_one_is_given_up(failing, how):
    left = []

    @failing.on("/-/actor.json")
    def answer(exchange):
        if how == "silent":
            left.append(exchange.left_within(60))
            exchange.hang_up()
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        try:
            while exchange.left_within(0.2) is None:
                exchange.chunk(b" ")
        finally:
            left.append(True)
    problem(failing.door.post({"Cookie": f"slow={how}"}), 503, "identity-unavailable")
    until(lambda: left and left[0] is not None, "Datasette is left")


def test_who_leaves_is_not_asked_about_any_more(failing):
    left = []

    @failing.on("/-/actor.json")
    def answer(exchange):
        left.append(exchange.left_within(60))
        exchange.hang_up()
    count = len(failing.asked("/-/actor.json"))
    with Wire(failing.door.gateway.port) as wire:
        wire.send("GET /-/agent/exec/quota HTTP/1.1\r\nHost: x\r\nCookie: leaving=1\r\n\r\n")
        until(lambda: len(failing.asked("/-/actor.json")) > count, "Datasette was asked")
    until(lambda: left, "Datasette is left")
    assert left[0] is not None


def test_datasette_is_away(rig):
    fake = rig.upstream()
    door = Door(rig, fake.url, identity_cache_seconds=1)
    fake.on("/-/actor.json")(lambda exchange: says(exchange, ADMIN))
    assert door.quota({"Cookie": "a=b"}).status_code == 200
    fake.close()
    until(lambda: door.quota({"Cookie": "a=b"}).status_code == 503, "nobody is let in any more")
    Ran(door.gateway.exec(command="true"))


# -- what Datasette is asked -----------------------------------------------------------------------

def test_only_what_says_who_it_is_is_sent(fake):
    fake.on("/-/actor.json")(lambda exchange: says(exchange, ADMIN))
    headers = {"Cookie": "ds_actor=a.b", "Authorization": "Basic YTpi", "Origin": f"http://127.0.0.1:{fake.door.gateway.port}",
               "X-Datasette-Authorization": "Bearer dstok_other", "Accept": "text/event-stream", "If-None-Match": "x", "X-Other": "y",
               "User-Agent": "me", "Idempotency-Key": "k", "Range": "bytes=0-1"}
    answer = fake.door.post({**headers, "Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    asked, = fake.asked("/-/actor.json")
    assert (asked.method, asked.target) == ("GET", "/-/actor.json")
    assert (asked["Cookie"], asked["Authorization"], asked["User-Agent"]) == ("ds_actor=a.b", "Basic YTpi", "me")
    assert asked["Host"] == f"127.0.0.1:{fake.door.gateway.port}" and asked["X-Forwarded-For"] == "127.0.0.1"
    for name in ("Range", "Accept", "Origin", "If-None-Match", "Content-Type", "Content-Length", "Transfer-Encoding", "X-Other",
                 "X-Datasette-Authorization", "Idempotency-Key"):
        assert asked.all(name) == [], (name, asked.fields)


def test_the_same_caller_is_asked_about_once(fake):
    @fake.on("/-/actor.json")
    def answer(exchange):
        says(exchange, {"id": exchange["Cookie"].partition("=")[2], "role": "admin"})
    door = fake.door
    callers = [{"Cookie": "who=ann"}, {"Cookie": "who=ann", "User-Agent": "other"}, {"Cookie": "who=bob"},
               {"Cookie": "who=ann", "Authorization": "Basic YTpi"}, {"Cookie": "who=ann", "Host": "other.test"}]
    for headers in callers:
        assert door.quota(headers).json()["actor"] == headers["Cookie"].partition("=")[2]
    assert len(fake.asked("/-/actor.json")) == len(callers), "one caller was taken for another"


def test_whoever_is_removed_is_out_within_seconds(rig, datasette):
    door = Door(rig, datasette.url, identity_cache_seconds=1)
    datasette.people({"p": {"id": "pia", "role": "analyst"}})
    asked = until(lambda: door.quota({"Cookie": "person=p"}).status_code == 200 and door.results()["cached"] >= 1 and door.results(),
                  "it was known from a moment before")
    assert asked["known"] >= 1
    datasette.people({})
    until(lambda: door.quota({"Cookie": "person=p"}).status_code == 401, "it is known no more")
    datasette.people({"p": {"id": "pia"}})
    until(lambda: door.quota({"Cookie": "person=p"}).status_code == 403, "it is somebody that may not")


def test_ten_thousand_cookies_take_no_memory(fake):
    """Many times more than are remembered."""
    body = json.dumps({"ok": True, "actor": None}).encode()
    fake.on("/-/actor.json")(lambda exchange: exchange.reply(body=body))
    gateway, batch = fake.door.gateway, 100

    def ask(first):
        wire.send("".join(f"GET /-/agent/exec/quota HTTP/1.1\r\nHost: x\r\nCookie: c={first + i}\r\n\r\n" for i in range(batch)))
        for _ in range(batch):
            assert wire.answer().status == 401
        fake.requests.clear()
    with Wire(gateway.port) as wire:
        for i in range(20):
            ask(i * batch)
        before = gateway.rss()
        for i in range(20, 100):
            ask(i * batch)
    assert fake.door.results()["anonymous"] == 100 * batch
    assert gateway.rss() - before < 1024 * 1024 * LARGER, f"the gateway grew by {(gateway.rss() - before) // 1024} KiB"
