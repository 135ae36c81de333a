"""Idempotency-Key: a command runs once however often it is asked for, and its answer is given again."""
import base64
import concurrent.futures
import json
import secrets

import pytest

import answers
from processes import go_on, new_mark, running
from rig import leases, until
from streamed import NDJSON, SSE, objects_of
from test_exec_lifecycle import Running
from wire import Wire, exec_request

marks = iter(new_mark, None)


def new_key():
    return secrets.token_hex(8)


def keyed(gateway, key, token=None, accept=None, **fields):
    headers = {"Idempotency-Key": key, **({"Accept": accept} if accept else {})}
    return gateway.exec(token=token, headers=headers, **fields)


def again(gateway, key, **fields):
    """Asked until it is no longer said to be running: Redis hears of the end a moment after the caller."""
    return until(lambda: (got := keyed(gateway, key, **fields)).status_code != 409 and got, "the answer is given again")


@pytest.mark.smoke
def test_the_answer_is_given_again(stack):
    key, token = new_key(), stack.mint(rate="1/1h", burst=1)["token"]
    first = keyed(stack, key, token=token, command="date +%s%N; exit 3")
    assert "Idempotency-Replayed" not in first.headers
    for _ in range(3):
        second = again(stack, key, token=token, command="date +%s%N; exit 3")
        assert (second.status_code, second.json()) == (200, first.json())
        assert second.headers["Idempotency-Replayed"] == "true" and second.headers["Content-Type"] == "application/json"
        assert second.headers["X-Exec-Id"] == first.headers["X-Exec-Id"]
        answers.check_limits(second.headers)
    assert stack.sprites.starts(first.json()["exec_id"]) == 1


def test_through_another_gateway(stack, rig):
    other, key = rig.gateway(), new_key()
    first = keyed(stack, key, command="echo once")
    second = again(other, key, token=stack.token, command="echo once")
    assert second.headers["Idempotency-Replayed"] == "true" and second.json() == first.json()


def test_while_it_runs(stack):
    key, mark = new_key(), next(marks)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(keyed, stack, key, command=f"sleep {mark}", timeout_seconds=200)
        until(lambda: running(mark), "it runs")
        refused = keyed(stack, key, command=f"sleep {mark}", timeout_seconds=200)
        body = answers.problem(refused, 409, "idempotency-in-progress")
        go_on(mark)
        first = waiting.result()
    assert refused.headers["Retry-After"] == "2"
    assert body["exec_id"] == first.json()["exec_id"] and first.json()["exit_code"] == 137
    assert again(stack, key, command=f"sleep {mark}", timeout_seconds=200).json() == first.json()


def test_many_at_once_run_once(stack):
    key = new_key()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: keyed(stack, key, command="sleep 0.3; echo done"), range(16)))
    ran = {one.json()["exec_id"] for one in found if one.status_code == 200}
    assert len(ran) == 1 and {one.status_code for one in found} <= {200, 409}
    assert stack.sprites.starts(ran.pop()) == 1


def test_another_body(stack):
    key = new_key()
    assert keyed(stack, key, command="echo one", timeout_seconds=10).status_code == 200
    for fields in ({"command": "echo two", "timeout_seconds": 10}, {"command": "echo one"}, {"argv": ["echo", "one"], "timeout_seconds": 10}):
        answers.problem(keyed(stack, key, **fields), 422, "idempotency-mismatch")
    same = stack.exec(b' {"timeout_seconds": 1e1, "command": "echo \\u006fne"} ', headers={"Idempotency-Key": f'"{key}"'})
    assert same.headers.get("Idempotency-Replayed") == "true", "the same in other words is the same"


def test_keys_belong_to_their_token(stack):
    key, other = new_key(), stack.mint()["token"]
    first, second = keyed(stack, key, command="echo mine"), keyed(stack, key, token=other, command="echo mine")
    assert second.status_code == 200 and "Idempotency-Replayed" not in second.headers
    assert first.json()["exec_id"] != second.json()["exec_id"]


@pytest.mark.parametrize("key", ["", '""', '"', 'a"b', "x" * 256, "\x7f"])
def test_what_is_no_key(stack, key):
    before = stack.sprites.state()["starts"]
    answers.problem(keyed(stack, key, command="true"), 400, "malformed-request")
    assert stack.sprites.state()["starts"] == before


def test_two_keys(stack):
    with Wire(stack.port) as wire:
        wire.send(exec_request(stack.token, b'{"command": "true"}', "Idempotency-Key: a", "Idempotency-Key: a"))
        assert wire.answer().status == 400


def test_refusals_are_not_remembered(stack):
    key, minted = new_key(), stack.mint(conc=1)
    command = Running(stack, token=minted["token"])
    answers.problem(keyed(stack, key, token=minted["token"], command="echo now"), 429, "quota-exceeded")
    command.wire.close()
    until(lambda: not stack.redis.zcard(f"sg:{{g}}:c:{minted['kid']}"), "the lease is given back")
    ran = keyed(stack, key, token=minted["token"], command="echo now")
    assert ran.status_code == 200 and "Idempotency-Replayed" not in ran.headers


def test_what_did_not_start_is_tried_again(rig):
    emulator = rig.emulator().view
    gateway, key = rig.gateway(emulator=emulator, pool_hot=0, pool_wait_seconds=1), new_key()
    with emulator.faulty("create_500", rate=1):
        answers.not_started(keyed(gateway, key, command="echo at last"))
    until(lambda: leases(rig.stack.redis) == 0, "it is settled")

    def ran():
        answer = keyed(gateway, key, command="echo at last")
        return answer if answer.status_code == 200 else None
    answer = until(ran, "it runs at last", interval=0.5)
    assert answer.json()["stdout"] == "at last\n" and "Idempotency-Replayed" not in answer.headers
    assert again(gateway, key, command="echo at last").headers["Idempotency-Replayed"] == "true"
    assert sum(emulator.state()["starts"].values()) == 1


def test_what_may_have_run_is_not_run_again(rig):
    emulator = rig.emulator().view
    gateway, key = rig.gateway(emulator=emulator, pool_hot=1), new_key()
    gateway.until_ready()
    with emulator.faulty("cut_before_exit", rate=1):
        first = answers.unknown(keyed(gateway, key, command="echo partial"))
    answers.unknown(again(gateway, key, accept=NDJSON, command="echo partial"))
    second = again(gateway, key, command="echo partial")
    found = {name: value for name, value in answers.unknown(second).items() if name not in ("request_id", "instance")}
    assert found == {name: value for name, value in first.items() if name not in ("request_id", "instance")}
    assert second.headers["Idempotency-Replayed"] == "true"
    assert emulator.starts(first["exec_id"]) == 1


def test_a_client_that_left_is_told_what_became_of_it(stack):
    key, mark = new_key(), next(marks)
    body = json.dumps({"command": f"echo before; sleep {mark}", "timeout_seconds": 60}).encode()
    with Wire(stack.port) as wire:
        wire.send(exec_request(stack.token, body, f"Idempotency-Key: {key}"))
        until(lambda: running(mark), "it runs")
    found = again(stack, key, body=body)
    assert (found.json()["outcome"], found.json()["stdout"]) == ("canceled", "before\n")
    until(lambda: not running(mark), "it is gone")


def test_one_that_left_before_it_started_may_try_again(rig):
    emulator = rig.emulator("--create-delay", "6s", quick=False)
    gateway, key = rig.gateway(emulator=emulator, pool_hot=0), new_key()
    with Wire(gateway.port) as wire:
        wire.send(exec_request(gateway.token, b'{"command": "echo ran"}', f"Idempotency-Key: {key}"))
        until(lambda: leases(rig.stack.redis) == 1, "it waits for a sandbox")
    found = again(gateway, key, command="echo ran")
    assert found.json()["stdout"] == "ran\n" and "Idempotency-Replayed" not in found.headers


def test_a_gateway_that_dies_under_it(rig):
    """Nobody knows whether it ran to its end: it is not run again under this key."""
    store = rig.redis()
    first, second, key, mark = rig.gateway(redis=store, pool_hot=1), rig.gateway(redis=store), new_key(), next(marks)
    first.until_ready()
    with Wire(first.port) as wire:
        body = json.dumps({"command": f"sleep {mark}", "timeout_seconds": 200}).encode()
        wire.send(exec_request(first.token, body, f"Idempotency-Key: {key}"))
        until(lambda: running(mark), "it runs")
        first.kill()
    answers.problem(keyed(second, key, token=first.token, body=body), 409, "idempotency-in-progress")
    for name in store.client.scan_iter("sg:{g}:c:*"):
        for member in store.client.zrange(name, 0, -1):
            store.client.zadd(name, {member: 1})    # the lease has ended
    body = answers.problem(keyed(second, key, token=first.token, body=body), 409, "idempotency-forgotten")
    assert answers.is_uuid7(body["exec_id"]) and "Retry-After" not in body


def test_nothing_is_replayed_when_nothing_is_kept(rig):
    gateway, key = rig.gateway(pool_hot=1, exec_result_bytes=0), new_key()
    first = keyed(gateway, key, command="echo once")
    assert first.status_code == 200
    until(lambda: leases(rig.stack.redis) == 0, "it is settled")
    body = answers.problem(keyed(gateway, key, command="echo once"), 409, "idempotency-forgotten")
    assert body["exec_id"] == first.json()["exec_id"]


def told(answer, kind):
    """All that a stream says, whatever its pieces are."""
    assert answer.headers["Content-Type"] == kind
    objects, pieces = list(objects_of(kind, [answer.content])), {}
    assert [objects[0]["type"], objects[-1]["type"]] == ["accepted", "result"]
    for one in objects[1:-1]:
        name, data = (one["type"], one.get("path")), one["data"]
        pieces[name] = pieces.get(name, b"") + (base64.b64decode(data) if one["encoding"] == "base64" else data.encode())
    return objects[0], pieces, objects[-1]


@pytest.mark.parametrize("kind", [NDJSON, SSE])
def test_a_stream_is_replayed(stack, kind):
    """In the form that is asked for, whatever the first one was told in."""
    key, fields = new_key(), {"command": "seq 20000; printf 'nul \\0, €, \\342'; printf '\\377\\0' >&2; seq 9999 >a; exit 4", "outputs": ["a", "b"]}
    first = keyed(stack, key, accept=kind, **fields)
    accepted, pieces, result = told(first, kind)
    assert len(pieces) == 3 and result["exit_code"] == 4
    second = again(stack, key, accept=kind, **fields)
    assert second.headers["Idempotency-Replayed"] == "true" and second.headers["X-Exec-Id"] == first.headers["X-Exec-Id"]
    assert told(second, kind) == (accepted, pieces, result)
    third = again(stack, key, **fields).json()
    assert base64.b64decode(third["stdout"]) == pieces["stdout", None] and third["files"]["a"]["text"].encode() == pieces["file", "a"]
    assert {name: third[name] for name in third if name not in ("stdout", "stderr", "files")} == {
        name: result[name] for name in result if name not in ("type", "files")}
    key = new_key()
    first = keyed(stack, key, command="echo once").json()
    second = again(stack, key, accept=kind, command="echo once")
    assert told(second, kind) == ({"type": "accepted", "exec_id": first["exec_id"]}, {("stdout", None): b"once\n"}, {
        "type": "result", **{name: first[name] for name in first if name not in ("stdout", "stderr")}})


def test_a_stream_whose_output_is_not_kept(stack):
    """It is told as JSON: a stream without output would look like one of a silent command."""
    key, fields = new_key(), {"command": "head -c 2000000 /dev/zero | tr '\\0' x", "max_output_bytes": 4_000_000}
    result = told(keyed(stack, key, accept=NDJSON, **fields), NDJSON)[2]
    second = again(stack, key, accept=NDJSON, **fields)
    assert second.headers["Content-Type"] == "application/json" and second.headers["Idempotency-Replayed"] == "true"
    assert {"type": "result", **second.json()} == result and result["stdout_bytes"] == 2_000_000


@pytest.mark.parametrize("middle", ["é", "\\377"], ids=["text", "no text"])
def test_output_that_was_cut(stack, middle):
    """JSON has head and tail, a stream the beginning: each is told again as it was kept, and none made of the other."""
    fields = {"command": f"printf 'ab{middle}cdefgh' | tee /dev/stderr", "max_output_bytes": 6}
    key = new_key()
    first = keyed(stack, key, **fields)
    second = again(stack, key, accept=NDJSON, **fields)
    assert second.headers["Content-Type"] == "application/json" and second.headers["Idempotency-Replayed"] == "true"
    assert second.json() == first.json() and first.json()["stderr_truncated"]
    key = new_key()
    accepted, pieces, result = told(keyed(stack, key, accept=NDJSON, **fields), NDJSON)
    assert told(again(stack, key, accept=NDJSON, **fields), NDJSON) == (accepted, pieces, result)
    third = again(stack, key, **fields).json()
    for name in ("stdout", "stderr"):
        text = third[name].encode() if third["encoding"][name] == "utf-8" else base64.b64decode(third[name])
        assert text == pieces[name, None] and third[f"{name}_truncated"]
        assert len(text) == 6 and "cut" not in third[name]


@pytest.mark.parametrize("was, now", [('"stdout_bytes":5', '"stdout_bytes":9223372036854775808'), ('"encoding":{"stdout":"utf-8",', '"encoding":{"stdout":1,')],
                         ids=["a large number", "no encoding"])
def test_what_cannot_be_streamed_is_told_all_the_same(stack, was, now):
    """As JSON, and whole: nothing of the stream that was begun comes with it."""
    key, fields = new_key(), {"command": "echo once"}
    first = keyed(stack, key, **fields).json()
    again(stack, key, **fields)
    name = f"sg:{{g}}:x:{first['exec_id']}"
    kept = stack.redis.get(name)
    assert was in kept
    stack.redis.set(name, kept.replace(was, now), keepttl=True)
    second = again(stack, key, accept=NDJSON, **fields)
    assert second.status_code == 200 and second.headers["Content-Type"] == "application/json"
    assert second.headers["Idempotency-Replayed"] == "true" and second.json()["stdout"] == "once\n"


def test_keys_are_remembered_for_a_day(stack):
    minted = stack.mint()
    keyed(stack, new_key(), token=minted["token"], command="true")
    names = list(stack.redis.scan_iter(f"sg:{{g}}:i:{minted['kid']}:*"))
    assert len(names) == 1 and 86_000_000 < stack.redis.pttl(names[0]) <= 86_400_000
