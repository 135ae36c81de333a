"""Files that are there before the command runs: from strings, base64 and Datasette, whole or nothing runs."""
import base64
import hashlib

import pytest

from answers import problem
from processes import new_mark, running
from rig import leases, until
from sources import shared, upstream  # noqa: F401
from streamed import Streamed

MIB = 1024 * 1024
marks = iter(new_mark, None)
BYTES = bytes(range(256)) * 16


@pytest.mark.smoke
def test_forms(stack):
    ran = stack.run("cat one; md5sum < sub/two; /tmp/three; stat -c %a one sub/two /tmp/three sub empty; cat", stdin="in", files={
        "one": "ä€\n", "sub/two": {"base64": base64.b64encode(BYTES).decode()},
        "/tmp/three": {"text": "#!/bin/sh\necho three\n", "mode": "0755"}, "empty": ""})
    assert ran.stdout == f"ä€\n{hashlib.md5(BYTES).hexdigest()}  -\nthree\n644\n644\n755\n755\n644\nin", ran.json


def test_relative_to_cwd(stack):
    assert stack.run("cat /tmp/a/b", cwd="/tmp", files={"a/b": "x"}).stdout == "x"


def test_argv_and_stream(stack):
    with Streamed(stack, argv=["cat", "a"], files={"a": "x" * 100_000}) as streamed:
        streamed.all()
    assert streamed.stdout == b"x" * 100_000


def test_large_and_many(stack):
    files = {f"d/{i}": str(i) * 1000 for i in range(255)} | {"big": "z" * 8_000_000}
    ran = stack.run("ls d | wc -l; wc -c < big; cat d/* | wc -c", files=files)
    assert ran.stdout.split() == ["255", "8000000", str(sum(len(str(i)) for i in range(255)) * 1000)]


@pytest.mark.parametrize("path", ["", "/", "a/", "a//b", "../a", "a/../b", "/a/..", ".", "./a", "a/./b", "x" * 256, "a/" * 2100 + "b"])
def test_paths_that_are_refused(stack, path):
    body = problem(stack.exec(command="true", files={path: "x"}), 422, "invalid-request")
    assert body["errors"][0]["pointer"].startswith("/files/"), body


def test_too_many(stack):
    body = problem(stack.exec(command="true", files={str(i): "" for i in range(257)}), 422, "invalid-request")
    assert body["errors"] == [{"pointer": "/files", "detail": "has 257 entries, the limit is 256"}]


def test_they_count_as_input(stack):
    token = stack.mint(max_in="1KiB")["token"]
    assert stack.run("true", token=token, stdin="x" * 24, files={"a": "x" * 1000}).exit_code == 0
    body = problem(stack.exec(token=token, command="true", stdin="x" * 25, files={"a": "x" * 1000}), 413, "body-too-large")
    assert body["limit_bytes"] == 1024


@pytest.mark.parametrize("path", ["/proc/version/x", "/dev/full", "/tmp"])
def test_what_cannot_be_written_is_told_and_nothing_runs(stack, path):
    ran = stack.run("echo ran", files={"a": "x", path: "x"})
    assert (ran.exit_code, ran.stdout) == (126, "") and path.rpartition("/x")[0] in ran.stderr, ran.json


def test_from_datasette(upstream):
    asked = []

    @upstream.on("/a")
    def answer(exchange):
        asked.append("/a")
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        for i in range(0, len(BYTES), 100):
            exchange.chunk(BYTES[i:i + 100])
        exchange.send(b"0\r\n\r\n")

    @upstream.on("/b")
    def empty(exchange):
        asked.append("/b")
        exchange.reply()

    @upstream.on("/c")
    def other(exchange):
        asked.append("/c")
        exchange.reply(body=b"in")
    files = {"a": {"datasette": "/a", "mode": "600"}, "text": "t", "b": {"datasette": "/b"}}
    command = "stat -c '%a %s' a b text; base64 -w 0 a; echo; cat"
    for stdin, last in ((None, ""), ("in", "in"), ({"datasette": "/c"}, "in")):
        ran = upstream.gateway.run(command, files=files, **({"stdin": stdin} if stdin else {}))
        assert ran.stdout == f"600 {len(BYTES)}\n644 0\n644 1\n{base64.b64encode(BYTES).decode()}\n{last}", ran.json
    assert asked == ["/a", "/b", "/a", "/b", "/a", "/b", "/c"]


def test_large_from_datasette(upstream):
    size = 20 * MIB
    upstream.on("/a")(lambda exchange: exchange.reply(body=b"x" * size))
    assert upstream.gateway.run("wc -c < a; cat", stdin="after", files={"a": {"datasette": "/a"}}, timeout_seconds=100).stdout == f"{size}\nafter"


@pytest.mark.parametrize("which", ["/files/a", "/files/b~1c", "/stdin"])
@pytest.mark.parametrize("how", ["404", "break"])
def test_a_source_that_fails_is_named_and_nothing_runs(upstream, which, how):
    paths = {"/files/a": "/a", "/files/b~1c": "/b", "/stdin": "/c"}
    for path in paths.values():
        upstream.on(path)(lambda exchange: exchange.reply(body=b"x" * 1000))

    @upstream.on(paths[which])
    def answer(exchange):
        if how == "404":
            exchange.reply("404 Not Found")
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"x" * 1000)
        exchange.hang_up()
    mark = next(marks)
    response = upstream.gateway.exec(command=f"sleep {mark}; echo ran", timeout_seconds=60, stdin={"datasette": "/c"},
                                     files={"a": {"datasette": "/a"}, "b/c": {"datasette": "/b"}})
    body = problem(response, 502, "source-failed")
    assert body["pointer"] == which and body["source_status"] == (404 if how == "404" else 200), body
    if which == "/stdin" and how == "break":
        assert body["outcome"] in ("canceled", "not_started"), body
    else:
        assert (body["outcome"], body["may_have_run"]) == ("not_started", False), body
        assert not running(mark)


def test_the_rate_is_given_back(upstream, rig):
    """Of a command that did not begin, though a sandbox had been taken."""
    token = rig.mint(rate="1/1h", burst=1)["token"]
    upstream.on("/a")(lambda exchange: exchange.reply(body=b"x"))
    upstream.on("/b")(lambda exchange: exchange.reply("404 Not Found"))
    for _ in range(2):
        body = problem(upstream.gateway.exec(token=token, command="true", files={"a": {"datasette": "/a"}, "b": {"datasette": "/b"}}), 502,
                       "source-failed")
        assert body["pointer"] == "/files/b", body
        until(lambda: leases(rig.stack.redis) == 0, "it is settled")


def test_input_that_breaks_on_its_way_runs_nothing(rig):
    """The platform cuts the connection in the middle of the files."""
    emulator = rig.emulator().view
    gateway = rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    with emulator.faulty("lose_input_above", bytes=5000, count=1):
        response = gateway.exec(command="echo ran", files={"a": "x" * 10_000})
    assert "ran\n" not in response.json().get("stdout", ""), response.text
    assert response.json().get("exit_code") != 0, response.text
