"""Bodies of type multipart/form-data: the request as one part, files as the others."""
import contextlib
import json

import pytest

from answers import Ran, problem
from rig import leases, until
from wire import Wire

BYTES = bytes(range(256)) * 40


def send(stack, request, parts=(), headers=None, boundary=None, token=None, **more):
    """`parts`: (name, bytes)."""
    files = [("request", (None, json.dumps(request)))] + [(name, ("some file", data, "application/octet-stream")) for name, data in parts]
    headers = {"Authorization": f"Bearer {token or stack.token}", **(headers or {})}
    if boundary:
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
    return stack.http.post("/-/agent/exec", files=files, headers=headers, **more)


def send_raw(stack, body, content_type="multipart/form-data; boundary=b"):
    return stack.http.post("/-/agent/exec", content=body, headers={"Authorization": f"Bearer {stack.token}", "Content-Type": content_type})


@pytest.mark.smoke
def test_files_and_stdin(stack):
    ran = Ran(send(stack, {"command": "cat; cmp bytes copy && stat -c %a bytes", "stdin": {"part": "in"},
                           "files": {"bytes": {"part": "bytes", "mode": "600"}, "copy": {"part": "copy"}}, "outputs": ["bytes"]},
                   [("in", b"standard input\n"), ("bytes", BYTES), ("copy", BYTES)]))
    assert ran.stdout == "standard input\n600\n" and ran.files["bytes"]["bytes"] == len(BYTES)


def test_without_any(stack):
    assert Ran(send(stack, {"argv": ["echo", "x"]})).stdout == "x\n"


def test_beside_datasette(stack):
    ran = Ran(send(stack, {"command": "cat first; head -n 1", "files": {"first": {"part": "a"}}, "stdin": {"datasette": "/sample/stations.csv"}}, [("a", b"a\n")]))
    assert ran.stdout.split() == ["a", "id,name,country,latitude,longitude"]


@pytest.mark.parametrize("request_, parts, pointer, detail", [
    ({"stdin": {"part": "a"}}, [], "/stdin/part", "no such part"), ({"files": {"x": {"part": "request"}}}, [], "/files/x/part", "no such part"),
    ({"stdin": {"part": "a"}, "files": {"x": {"part": "a"}}}, [("a", b"")], "/files/x/part", "used twice"), ({}, [("a", b"x")], "", "the part a is not used"),
    ({"stdin": {"part": "a", "base64": ""}}, [("a", b"")], "/stdin", "must be")])
def test_parts_that_do_not_fit(stack, request_, parts, pointer, detail):
    body = problem(send(stack, {"command": "true", **request_}, parts), 422, "invalid-request")
    assert any(error["pointer"] == pointer and detail in error["detail"] for error in body["errors"]), body


PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'


@pytest.mark.parametrize("body, detail", [
    (b"", "does not begin"), (b"{}", "does not begin"), (PART % (b"request", b'{"command": "true"}'), "Part 1 is not ended"),
    (PART % (b"other", b"x") + b"--b--", "No part is named request"), (PART % (b"request", b"{}") * 2 + b"--b--", "Part 2 has the name"),
    (PART % (b"a b", b"x") + b"--b--", "Part 1 has a name"), (b"--b\r\n\r\nx\r\n--b--", "Part 1 has no Content-Disposition")])
def test_broken(stack, body, detail):
    assert detail in problem(send_raw(stack, body), 400, "malformed-request")["detail"]


def test_the_request_is_as_strict_as_ever(stack):
    problem(send_raw(stack, PART % (b"request", b"{") + b"--b--"), 400, "malformed-request")
    problem(send_raw(stack, PART % (b"request", b'{"command": "true", "x": 1}') + b"--b--"), 422, "invalid-request")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b", 'multipart/form-data; boundary="b'])
def test_other_types(stack, kind):
    problem(send_raw(stack, PART % (b"request", b"{}") + b"--b--", kind), 415, "unsupported-media-type")


def test_limits(stack):
    token = stack.mint(max_in="1KiB")["token"]
    fields = {"command": "wc -c", "stdin": {"part": "a"}}
    assert Ran(send(stack, fields, [("a", b"x" * 1024)], token=token)).stdout == "1024\n"
    assert problem(send(stack, fields, [("a", b"x" * 1025)], token=token), 413, "body-too-large")["limit_bytes"] == 1024
    assert Ran(send(stack, fields, [("a", b"x" * 15_000_000)])).stdout == "15000000\n"
    assert problem(send(stack, fields, [("a", b"x" * 17_000_000)]), 413, "body-too-large")["limit_bytes"] == 16 * 1024 * 1024


def test_with_a_key(stack):
    """The contents count, however they are packed."""
    fields, headers = {"command": "cat", "stdin": {"part": "a"}}, {"Idempotency-Key": "parts"}
    first = Ran(send(stack, fields, [("a", b"one")], headers, boundary="1"))
    again = until(lambda: (got := send(stack, fields, [("a", b"one")], headers, boundary="2")).status_code == 200 and got, "it is replayed")
    assert again.json()["stdout"] == first.stdout == "one" and again.headers["Idempotency-Replayed"] == "true"
    problem(send(stack, fields, [("a", b"two")], headers), 422, "idempotency-mismatch")


def test_another_sandbox_gets_all_of_them(rig):
    """The first one refuses the command, which was not started."""
    emulator = rig.emulator().view
    gateway = rig.gateway(emulator=emulator, pool_hot=2, pool_ahead=0)
    gateway.until_ready()
    with emulator.faulty("op_error", count=1):
        ran = Ran(send(gateway, {"command": "cat - bytes", "stdin": {"part": "in"}, "files": {"bytes": {"part": "bytes"}}}, [("in", b"begun"), ("bytes", BYTES)]))
        assert emulator.hits("op_error") == 1
    assert ran.bytes("stdout") == b"begun" + BYTES and emulator.starts(ran.exec_id) == 1


def test_leaving_in_the_middle(rig):
    """Bodies that are not whole count, until their clients have left: sixteen of the largest fit. None of them is asked about."""
    gateway = rig.gateway(workers=1, exec_max_body_bytes="64KiB")
    begun = PART % (b"a", b"x" * 60_000)

    def told():
        return send(gateway, {"command": "true"}, [("a", b"x" * 60_000)]).status_code
    with contextlib.ExitStack() as stack:
        for _ in range(17):
            wire = stack.enter_context(Wire(gateway.port))
            wire.ask("POST", "/-/agent/exec", f"Authorization: Bearer {gateway.token}", "Content-Type: multipart/form-data; boundary=b",
                     f"Content-Length: {len(begun) + 100}", body=begun, length=False)
        until(lambda: told() == 503, "no other body fits")
        assert leases(rig.stack.redis) == 0
    until(lambda: told() == 422, "there is room again")
    assert leases(rig.stack.redis) == 0 and gateway.metrics().get("spritegate_exec_running") == 0
