"""A command after it was started: what is told of it, to whom and for how long, and how it is canceled."""
import base64
import concurrent.futures
import json
import time
import uuid

import pytest

import answers
from processes import new_mark, running
from rig import SLOWER, leases, until
from streamed import NDJSON, Streamed
from wire import Wire, exec_request

marks = iter(new_mark, None)
HOUR_MS = 3_600_000


def ask(gateway, method, exec_id, token=None, **headers):
    headers["Authorization"] = f"Bearer {token or gateway.token}"
    return gateway.http.request(method, f"/-/agent/exec/{exec_id}", headers=headers)


def state(response, status, exec_id):
    """The answer of a GET or DELETE that found the command."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json" and response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Exec-Id"] == exec_id
    answers.check_limits(response.headers)
    body = response.json()
    assert body["exec_id"] == exec_id, body
    return body


def finished(gateway, exec_id, **more):
    return state(until(lambda: (found := ask(gateway, "GET", exec_id, **more)).json().get("state") != "running" and found, "it has finished"),
                 200, exec_id)


class Running:
    """A command that waits, on a connection of its own."""

    def __init__(self, gateway, before="", token=None, **headers):
        self.mark = next(marks)
        self.wire = Wire(gateway.port)
        body = {"command": f"{before} sleep {self.mark}", "timeout_seconds": 60}
        self.wire.send(exec_request(token or gateway.token, json.dumps(body).encode()))
        until(lambda: running(self.mark), "the command runs", interval=0.005)
        self.exec_id = next(iter(self.ids(gateway)))

    def ids(self, gateway):
        """Of the processes that have the mark: what the gateway put into their environment."""
        for pid in running(self.mark):
            with open(f"/proc/{pid}/environ", "rb") as file:
                for word in file.read().split(b"\0"):
                    if word.startswith(b"SPRITEGATE_EXEC_ID="):
                        yield word.partition(b"=")[2].decode()

    def answer(self):
        with self.wire:
            return self.wire.answer()


# --- what is told ---

@pytest.mark.smoke
def test_a_finished_command(stack):
    ran = stack.run("echo out; echo err >&2; exit 3")
    told = finished(stack, ran.exec_id)
    assert told.pop("state") == "finished"
    assert told == ran.json


@pytest.mark.smoke
def test_a_running_command(stack):
    command = Running(stack)
    assert state(ask(stack, "GET", command.exec_id), 200, command.exec_id) == {"ok": True, "exec_id": command.exec_id, "state": "running"}
    head = ask(stack, "HEAD", command.exec_id)
    assert (head.status_code, head.content) == (200, b"")
    command.wire.close()
    told = finished(stack, command.exec_id)
    assert (told["outcome"], told["exit_code"]) == ("canceled", None), "what became of it is told to those that come back"


def test_output_of_a_mebibyte_is_kept(stack):
    ran = stack.run("head -c 1000000 /dev/zero | tr '\\0' x")
    assert finished(stack, ran.exec_id)["stdout"] == "x" * 1_000_000


def test_larger_output_is_not_kept(stack):
    ran = stack.run("head -c 3000000 /dev/zero; echo err >&2", max_output_bytes=4_000_000)
    told = finished(stack, ran.exec_id)
    assert told.pop("state") == "finished"
    assert told == {name: value for name, value in ran.json.items() if name not in ("stdout", "stderr")}


def as_stored(streamed):
    """A streamed answer as it would have been without streaming."""
    members = {name: value for name, value in streamed.result.items() if name not in ("type", "at")}
    texts = {name: data.decode() if streamed.encoding[name] == "utf-8" else base64.b64encode(data).decode() for name, data in streamed.output.items()}
    return {"state": "finished", **members, **texts}


@pytest.mark.parametrize("fields, outcome", [
    ({"command": "echo streamed; printf 'nul \\0 byte' >&2; exit 4"}, "exited"), ({"command": "printf 'a\\377'; printf '€\\342'>&2"}, "exited"),
    ({"command": "printf a€€€€; echo long >&2", "max_output_bytes": 9}, "exited"),
    ({"command": "echo before; sleep 60", "timeout_seconds": 1}, "timed_out"),
], ids=["text", "no text", "cut", "timed out"])
def test_a_streamed_command(stack, fields, outcome):
    with Streamed(stack, **fields) as streamed:
        streamed.all()
    assert streamed.outcome == outcome and streamed.stdout
    assert finished(stack, streamed.exec_id) == as_stored(streamed)


def test_files_of_a_streamed_command(stack):
    with Streamed(stack, command="echo text >a; printf '\\377' >b; : >c; printf '\\342'", outputs=["a", "b", "c", "gone"]) as streamed:
        streamed.all()
    told = finished(stack, streamed.exec_id)
    assert told["files"] == {"a": {"text": "text\n", "bytes": 5}, "b": {"base64": "/w==", "bytes": 1}, "c": {"text": "", "bytes": 0},
                             "gone": {"error": "not_found"}}
    assert told["stdout"] == "4g=="


@pytest.mark.parametrize("fields", [
    {"command": "head -c 700000 /dev/zero | tr '\\0' x; head -c 700000 /dev/zero >&2"},
    {"command": "head -c 700000 /dev/zero; head -c 700000 /dev/zero >a", "outputs": ["a"]},
    {"command": "head -c 300000 /dev/zero"},    # each byte is \\u0000
], ids=["both", "with a file", "escaped"])
def test_what_is_too_large_in_all_is_kept_without_output(stack, fields):
    with Streamed(stack, **fields) as streamed:
        streamed.all()
    told = as_stored(streamed)
    del told["stdout"], told["stderr"]
    assert finished(stack, streamed.exec_id) == told


def test_a_command_whose_end_is_not_known(rig):
    emulator = rig.emulator().view
    gateway = rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    with emulator.faulty("cut_before_exit", rate=1):
        body = answers.unknown(gateway.exec(command="echo partial"))
    gateway.until_ready()
    with emulator.faulty("cut_before_exit", rate=1), Streamed(gateway, command="echo partial") as streamed:
        streamed.all()
    for exec_id in body["exec_id"], streamed.exec_id:
        told = finished(gateway, exec_id)
        assert {name: told[name] for name in ("ok", "status", "code", "outcome", "may_have_run", "stdout")} == {
            "ok": False, "status": 502, "code": "outcome-unknown", "outcome": "unknown", "may_have_run": True, "stdout": "partial\n"}


def test_other_gateways_tell_it_too(stack, rig):
    other = rig.gateway()
    ran = stack.run("echo here")
    assert finished(other, ran.exec_id, token=stack.token)["stdout"] == "here\n"
    command = Running(stack)
    assert state(ask(other, "GET", command.exec_id, token=stack.token), 200, command.exec_id)["state"] == "running"
    assert state(ask(other, "DELETE", command.exec_id, token=stack.token), 202, command.exec_id)["state"] == "canceling"
    assert answers.Ran(command.answer()).outcome == "canceled"
    assert state(ask(other, "DELETE", command.exec_id, token=stack.token), 200, command.exec_id)["outcome"] == "canceled"


def test_it_is_forgotten_after_an_hour(stack):
    ran = stack.run("true")
    finished(stack, ran.exec_id)
    left = stack.redis.pttl(f"sg:{{g}}:x:{ran.exec_id}")
    assert HOUR_MS - 60_000 < left <= HOUR_MS
    stack.redis.pexpire(f"sg:{{g}}:x:{ran.exec_id}", 1)
    until(lambda: ask(stack, "GET", ran.exec_id).status_code == 404, "it is forgotten")


def test_nothing_is_kept_when_so_set(rig):
    gateway = rig.gateway(pool_hot=1, exec_result_bytes=0)
    ran = gateway.run("echo secret")
    until(lambda: leases(rig.stack.redis) == 0, "it is settled")
    answers.problem(ask(gateway, "GET", ran.exec_id), 404, "exec-not-found")
    assert not rig.stack.redis.exists(f"sg:{{g}}:x:{ran.exec_id}")


# --- to whom ---

def alike(response):
    body = answers.problem(response, 404, "exec-not-found")
    return {name: value for name, value in body.items() if name not in ("request_id", "instance")}, sorted(response.headers)


def test_wrong_ids_look_alike(stack):
    """Another token's running command, its finished one, and an id that never was."""
    other = stack.mint()["token"]
    ran = stack.run("echo secret")
    command = Running(stack)
    finished(stack, ran.exec_id)
    found = [alike(ask(stack, method, exec_id, token=other)) for method in ("GET", "DELETE")
             for exec_id in (ran.exec_id, command.exec_id, str(uuid.uuid4()))]
    assert all(one == found[0] for one in found), found
    assert running(command.mark), "another token has canceled it"
    command.wire.close()


@pytest.mark.parametrize("path", ["x", "", "quota/", "0193e3f0-0000-7000-8000-00000000000", "0193e3f0-0000-7000-8000-0000000000000",
                                  "0193E3F0-0000-7000-8000-00000000000A", "0193e3f0-0000-7000-8000-000000000000/", "0193e3f0000070008000000000000000"])
def test_what_is_no_id(stack, path):
    answers.problem(ask(stack, "GET", path), 404, "not-found")


def test_without_a_valid_token(stack):
    exec_id = stack.run("true").exec_id
    for method in ("GET", "DELETE"):
        answers.problem(stack.http.request(method, f"/-/agent/exec/{exec_id}"), 401, "missing-token")
        answers.problem(ask(stack, method, exec_id, token="sgt_0123456789abcdef_wrong"), 401, "invalid-token")
        answers.problem(stack.http.request(method, f"/-/agent/exec/{exec_id}?access_token={stack.token}"), 400, "invalid-authorization")


def test_only_from_the_networks_of_the_token(stack):
    """A result is worth as much as a command."""
    token = stack.mint(ip="192.0.2.0/24")["token"]
    answers.problem(ask(stack, "GET", str(uuid.uuid4()), token=token), 403, "ip-denied")


def test_a_revoked_token_learns_nothing(stack):
    minted = stack.mint()
    exec_id = stack.run("true", token=minted["token"]).exec_id
    stack.redis.hset(f"sg:{{g}}:k:{minted['kid']}", "status", "revoked")
    answers.problem(ask(stack, "GET", exec_id, token=minted["token"]), 401, "invalid-token")


def test_asking_uses_up_nothing(stack):
    token = stack.mint(rate="1/1h", burst=1)["token"]
    exec_id = stack.run("true", token=token).exec_id
    for _ in range(5):
        assert ask(stack, "GET", exec_id, token=token).status_code == 200


def test_methods(stack):
    exec_id = stack.run("true").exec_id
    for method in ("POST", "PUT", "PATCH"):
        refused = ask(stack, method, exec_id)
        answers.problem(refused, 405, "method-not-allowed")
        assert refused.headers["Allow"] == "GET, HEAD, DELETE, OPTIONS"
    preflight = stack.http.options(f"/-/agent/exec/{exec_id}", headers={"Origin": "https://a.test", "Access-Control-Request-Method": "DELETE"})
    assert preflight.status_code == 204 and preflight.headers["Access-Control-Allow-Methods"] == "GET, HEAD, DELETE, OPTIONS"


# --- canceling ---

@pytest.mark.smoke
def test_cancel(stack):
    killed = stack.metrics().get("spritegate_exec_killed_total", reason="request")
    command = Running(stack, before="echo before;")
    told = state(ask(stack, "DELETE", command.exec_id), 202, command.exec_id)
    assert told == {"ok": True, "exec_id": command.exec_id, "state": "canceling"}
    ran = answers.Ran(command.answer())
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("canceled", None, "before\n")
    until(lambda: not running(command.mark), "the process is gone")
    assert finished(stack, command.exec_id)["outcome"] == "canceled"
    assert stack.metrics().get("spritegate_exec_killed_total", reason="request") == killed + 1


def test_cancel_a_stream(stack):
    mark = next(marks)
    with Streamed(stack, command=f"echo before; sleep {mark}", timeout_seconds=60) as streamed:
        objects = iter(streamed)
        next(one for one in objects if one["type"] == "stdout")
        assert ask(stack, "DELETE", streamed.exec_id).status_code == 202
        for _ in objects:
            pass
    assert (streamed.ok, streamed.outcome, streamed.stdout) == (True, "canceled", b"before\n")
    assert finished(stack, streamed.exec_id) == as_stored(streamed)
    until(lambda: not running(mark), "the process is gone")


def test_cancel_a_stream_that_waits_for_a_sandbox(rig):
    emulator = rig.emulator("--create-delay", "3s", quick=False)
    gateway = rig.gateway(emulator=emulator, pool_hot=0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gateway.exec, command="true", headers={"Accept": NDJSON})
        member = until(lambda: rig.stack.redis.zrange(f"sg:{{g}}:c:{gateway.kid}", 0, 0), "it waits")[0]
        lease = member.partition(":")[0]
        now = f"{int(time.time() * 1000):012x}"
        # The lease is the end of the id; its beginning is the time, of which only the lowest bits are there.
        for ms in range(int(time.time() * 1000) - 3000, int(time.time() * 1000) + 1):
            text = f"{ms:012x}"
            if text[8:] == lease[:4]:
                now = text
        digits = now[:8] + lease
        exec_id = str(uuid.UUID(digits))
        assert ask(gateway, "DELETE", exec_id).status_code == 202
        answer = waiting.result()
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["type"] for line in lines] == ["accepted", "result"]
    assert lines[1]["outcome"] == "canceled" and emulator.view.state()["starts"] == {}


# Says when it is told to end, and ends by itself or not.
TIDY = "trap 'echo tidied; exit 0' TERM; echo begun; while :; do sleep 0.05; done"
STUBBORN = "trap 'echo told' TERM; echo begun; while :; do sleep 0.05; done"


def begun(gateway, command, **fields):
    """The streamed answer of a command that has printed its first line, and the rest of its objects."""
    streamed = Streamed(gateway, command=command, timeout_seconds=60, **fields)
    objects = iter(streamed)
    next(one for one in objects if one["type"] == "stdout")
    return streamed, objects


def canceled(streamed, objects, stdout):
    with streamed:
        for _ in objects:
            pass
    assert (streamed.ok, streamed.outcome, streamed.result["exit_code"], streamed.result["signal"]) == (True, "canceled", None, None), streamed.result
    assert streamed.stdout in stdout
    return streamed.result["duration_ms"]


def test_term_comes_first(stack):
    """What a command prints while it tidies up is there, and nobody waits for the end of the two seconds."""
    streamed, objects = begun(stack, TIDY)
    assert ask(stack, "DELETE", streamed.exec_id).status_code == 202
    ran_ms = canceled(streamed, objects, [b"begun\ntidied\n"])
    assert ran_ms < 2000 * SLOWER, f"{ran_ms} ms"
    assert streamed.result["output_check"] == "counted", "its end was seen"
    assert finished(stack, streamed.exec_id) == as_stored(streamed)


def test_kill_comes_two_seconds_later(stack):
    token = stack.mint(budget="600s/day")["token"]
    streamed, objects = begun(stack, STUBBORN, token=token)
    asked = time.monotonic()
    assert ask(stack, "DELETE", streamed.exec_id, token=token).status_code == 202
    ran_ms = canceled(streamed, objects, [b"begun\ntold\n"])
    assert 1900 <= ran_ms and 1.9 <= time.monotonic() - asked <= 20 * SLOWER, f"{ran_ms} ms"
    stack.until_settled(token)
    used = stack.get("/-/agent/exec/quota", headers={"Authorization": f"Bearer {token}"}).json()["budget"]["used_ms"]
    assert abs(used - ran_ms) <= 1, f"{ran_ms} ms, and {used} ms are paid"


def test_asking_again_kills(stack):
    streamed, objects = begun(stack, STUBBORN)
    for _ in range(2):
        assert ask(stack, "DELETE", streamed.exec_id).status_code == 202
    canceled(streamed, objects, [b"begun\n", b"begun\ntold\n"])
    assert streamed.result["output_check"] == "none", "its end was waited for"


def test_it_may_end_in_time(stack):
    """Its own end is told as that, whoever has asked meanwhile."""
    for wait in (0.28, 0.29, 0.3, 0.31, 0.32):
        streamed, objects = begun(stack, "echo begun; sleep 0.3; exit 7")
        with streamed:
            time.sleep(wait)
            assert ask(stack, "DELETE", streamed.exec_id).status_code in (200, 202)
            for _ in objects:
                pass
        assert (streamed.outcome, streamed.result["exit_code"]) in (("exited", 7), ("canceled", None)), streamed.result


def test_leaving_after_asking_kills(stack):
    mark = next(marks)
    streamed, _ = begun(stack, f"trap '' TERM; echo begun; sleep {mark}; sleep {mark}")
    until(lambda: running(mark), "it sleeps", interval=0.005)
    assert ask(stack, "DELETE", streamed.exec_id).status_code == 202
    streamed.wire.close()
    told = finished(stack, streamed.exec_id)
    assert (told["outcome"], told["output_check"]) == ("canceled", "none"), told
    until(lambda: not running(mark), "the process is gone")


def test_term_comes_first_through_another_gateway(stack, rig):
    """And is what its owner wanted, not an operator."""
    other = rig.gateway(token=False)

    def ended_by():
        return {reason: stack.metrics().get("spritegate_exec_killed_total", reason=reason) for reason in ("request", "operator")}
    before = ended_by()
    streamed, objects = begun(stack, TIDY)
    assert ask(other, "DELETE", streamed.exec_id, token=stack.token).status_code == 202
    canceled(streamed, objects, [b"begun\ntidied\n"])
    assert ended_by() == before | {"request": before["request"] + 1}
    streamed, objects = begun(stack, STUBBORN)
    for _ in range(2):
        assert ask(other, "DELETE", streamed.exec_id, token=stack.token).status_code == 202
    canceled(streamed, objects, [b"begun\n", b"begun\ntold\n"])
    assert streamed.result["output_check"] == "none", "its end was waited for"


def test_a_session_goes_on_after_it(stack):
    streamed, objects = begun(stack, TIDY, session="canceled")
    assert ask(stack, "DELETE", streamed.exec_id).status_code == 202
    canceled(streamed, objects, [b"begun\ntidied\n"])
    ran = stack.run("echo next", session="canceled")
    assert ran.stdout == "next\n" and ran.json["sandbox"] == {"tier": "hot", "session": {"name": "canceled", "created": False}}
    stack.http.delete("/-/agent/exec/sessions/canceled", headers={"Authorization": f"Bearer {stack.token}"})


def test_cancel_what_has_finished(stack):
    ran = stack.run("echo done")
    finished(stack, ran.exec_id)
    told = state(ask(stack, "DELETE", ran.exec_id), 200, ran.exec_id)
    assert told.pop("state") == "finished" and told == ran.json


def test_cancel_many_times_at_once(stack):
    command = Running(stack)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ask(stack, "DELETE", command.exec_id), range(16)))
    assert {one.status_code for one in found} <= {200, 202}, [one.text for one in found]
    assert 202 in {one.status_code for one in found}
    assert answers.Ran(command.answer()).outcome == "canceled"


def test_leaving_while_asking(stack):
    """Nothing is left behind by those that do not wait for the answer."""
    command = Running(stack)
    for method in ("GET", "DELETE"):
        for _ in range(20):
            with Wire(stack.port) as wire:
                wire.ask(method, f"/-/agent/exec/{command.exec_id}", f"Authorization: Bearer {stack.token}")
                wire.reset()
    command.wire.close()
    until(lambda: leases(stack.redis) == 0, "no lease is held")
    assert stack.run("echo ok").stdout == "ok\n"


def test_redis_away(rig):
    store = rig.redis()
    gateway = rig.gateway(redis=store)
    store.kill()
    refused = until(lambda: (got := ask(gateway, "GET", str(uuid.uuid4()))).status_code == 503 and got, "it says so")
    answers.problem(refused, 503, "policy-unavailable")
