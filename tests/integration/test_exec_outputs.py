"""Files that are read back once a command has ended: whole or with a reason, in order, whatever the command ended with."""
import base64
import hashlib

import pytest

from answers import problem
from processes import go_on, new_mark, running
from rig import until
from streamed import SSE, Streamed

MIB = 1024 * 1024
BYTES = bytes(range(256)) * 16
FILL = "python3 -c \"import sys; sys.stdout.buffer.write(bytes(i * i >> 8 & 255 for i in range({})))\""


def filled(size):
    return bytes(i * i >> 8 & 255 for i in range(size))


@pytest.mark.smoke
def test_forms_and_order(stack):
    ran = stack.run("mkdir -p sub; printf 'ä€\\n' >sub/text; printf '\\377' >/tmp/bytes; : >empty; mkfifo pipe; ln -s sub/text link; exit 3",
                    outputs=["sub/text", "gone", "/tmp/bytes", "empty", "sub", "pipe", "/dev/zero", "link", "/proc/version"])
    assert ran.exit_code == 3
    assert list(ran.files.items()) == [
        ("sub/text", {"text": "ä€\n", "bytes": 6}), ("gone", {"error": "not_found"}), ("/tmp/bytes", {"base64": "/w==", "bytes": 1}),
        ("empty", {"text": "", "bytes": 0}), ("sub", {"error": "is_directory"}), ("pipe", {"error": "not_regular"}),
        ("/dev/zero", {"error": "not_regular"}), ("link", {"text": "ä€\n", "bytes": 6}), ("/proc/version", ran.files["/proc/version"])]


def test_relative_to_cwd_and_through_files(stack):
    ran = stack.run("tr a-z A-Z <in >out", cwd="/tmp", files={"in": "abc"}, outputs=["out", "/tmp/out", "in"])
    assert [ran.files[path]["text"] for path in ("out", "/tmp/out", "in")] == ["ABC", "ABC", "abc"]


def test_large_and_many(stack):
    size = 3 * MIB
    ran = stack.run(f"{FILL.format(size)} >big; for i in $(seq 63); do echo $i >$i; done", outputs=["big", *map(str, range(1, 64))],
                    max_output_bytes=4 * MIB, timeout_seconds=100)
    assert hashlib.sha256(base64.b64decode(ran.files["big"]["base64"])).digest() == hashlib.sha256(filled(size)).digest()
    assert [ran.files[str(i)]["text"] for i in range(1, 64)] == [f"{i}\n" for i in range(1, 64)]


def test_caps(stack):
    """Each as much as a stream, all of them what the streams leave."""
    ran = stack.run("head -c 1001 /dev/zero >more; head -c 1000 /dev/zero | tee a b c d >/dev/null; head -c 1000 /dev/zero; echo >&2",
                    outputs=["more", "a", "b", "d"], max_output_bytes=1000)
    assert [ran.files[name].get("error") for name in ("more", "a", "b", "d")] == ["too_large", "too_large", "too_large", "too_large"]
    assert ran.files["more"] == {"error": "too_large", "bytes": 1001}
    ran = stack.run("head -c 1000 /dev/zero | tee a b c d >/dev/null; echo -n 12345", outputs=["a", "b", "c"], max_output_bytes=1000)
    assert [ran.files[name].get("error") for name in "abc"] == [None, "too_large", "too_large"]
    token = stack.mint(max_out="10")["token"]
    ran = stack.run("head -c 10 /dev/zero | tee a >b; echo -n 12345678901 >c", outputs=["a", "c", "b"], token=token, max_output_bytes=1000)
    assert [ran.files[name].get("error") for name in "acb"] == [None, "too_large", None]


def test_they_count_as_output(stack):
    token = stack.mint(budget_out="1MiB/day")["token"]
    ran = stack.run("head -c 1000 /dev/zero >a", outputs=["a"], token=token, max_output_bytes=2000)
    assert "out_bytes=1000" in ran.headers["Exec-Usage"], ran.headers["Exec-Usage"]
    stack.until_settled(token)
    quota = stack.get("/-/agent/exec/quota", headers={"Authorization": f"Bearer {token}"}).json()
    assert quota["output_budget"]["used_bytes"] == 1000, quota


@pytest.mark.parametrize("kind", [None, SSE])
def test_streamed(stack, kind):
    with Streamed(stack, **({"kind": kind} if kind else {}), command=f"echo out; {FILL.format(100_000)} >bytes; yes ä€ | head -c 99999 >text; echo late >&2",
                  outputs=["gone", "bytes", "text", "/bin"]) as streamed:
        streamed.all()
    assert (streamed.stdout, streamed.stderr) == (b"out\n", b"late\n")
    assert streamed.files == {"bytes": filled(100_000), "text": (b"\xc3\xa4\xe2\x82\xac\n" * 17_000)[:99_999]}
    assert streamed.result["files"] == {"gone": {"error": "not_found"}, "bytes": {"bytes": 100_000}, "text": {"bytes": 99_999},
                                        "/bin": {"error": "is_directory"}}
    assert list(streamed.result["files"]) == ["gone", "bytes", "text", "/bin"]


def test_more_than_a_stream_holds(stack):
    """More than the gateway holds for a client."""
    size = 3 * MIB
    with Streamed(stack, receive_buffer=8192, command=f"{FILL.format(size)} >a", outputs=["a"], max_output_bytes=4 * MIB, timeout_seconds=120) as streamed:
        streamed.all()
    assert streamed.files["a"] == filled(size)


def test_timed_out(stack):
    ran = stack.run("echo partial >a; sleep 600", outputs=["a"], timeout_seconds=10)
    assert (ran.outcome, ran.files) == ("timed_out", {"a": {"text": "partial\n", "bytes": 8}})


def test_canceled(stack):
    headers = {"Authorization": f"Bearer {stack.token}"}
    with Streamed(stack, command="echo x >a; echo ready; sleep 600", outputs=["a"], timeout_seconds=200) as streamed:
        for found in streamed:
            if found["type"] == "stdout":
                stack.http.delete(f"/-/agent/exec/{streamed.exec_id}", headers=headers)
    assert (streamed.outcome, streamed.result["files"], streamed.files) == ("canceled", {"a": {"bytes": 2}}, {"a": b"x\n"})


def test_killed(stack):
    """Its end is not seen, whatever it has written."""
    headers = {"Authorization": f"Bearer {stack.token}"}
    with Streamed(stack, command="trap '' TERM; echo x >a; echo ready; sleep 600", outputs=["a"], timeout_seconds=200) as streamed:
        for found in streamed:
            for _ in range(2 if found["type"] == "stdout" else 0):
                stack.http.delete(f"/-/agent/exec/{streamed.exec_id}", headers=headers)
    assert (streamed.outcome, streamed.result["files"]) == ("canceled", {"a": {"error": "not_read"}})


def test_what_cannot_be_started(stack):
    ran = stack.run(argv=["/no/such"], outputs=["a"])
    assert (ran.exit_code, ran.files) == (127, {"a": {"error": "not_found"}})
    ran = stack.run("true", cwd="/no/such", outputs=["a", "/etc/passwd"])
    assert ran.exit_code == 126 and ran.files["a"] == {"error": "not_found"} and ran.files["/etc/passwd"]["bytes"] > 0


@pytest.mark.parametrize("outputs, pointer", [
    ("a", "/outputs"), ({}, "/outputs"), ([1], "/outputs/0"), (["a", "../b"], "/outputs/1"), ([""], "/outputs/0"), (["a/"], "/outputs/0"),
    (["a", "b", "a"], "/outputs/2"), (["x"] * 65, "/outputs"), (["a/" * 2100 + "b"], "/outputs/0")])
def test_refused(stack, outputs, pointer):
    body = problem(stack.exec(command="true", outputs=outputs), 422, "invalid-request")
    assert body["errors"][0]["pointer"] == pointer, body


def test_again_with_a_key(stack):
    """As far as it is kept."""
    for size, kept in ((1000, True), (2 * MIB, False)):
        fields = {"command": f"head -c {size} /dev/zero | tr '\\0' x >a", "outputs": ["a"], "max_output_bytes": 4 * MIB}
        headers = {"Idempotency-Key": f"outputs-{size}"}
        first = stack.exec(headers=headers, **fields)
        assert first.json()["files"]["a"]["text"] == "x" * size
        again = until(lambda: (got := stack.exec(headers=headers, **fields)).status_code == 200 and got, "it is replayed")
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.json()["files"] == {"a": ({"text": "x" * size} if kept else {}) | {"bytes": size}}


def test_in_a_session(stack):
    token = stack.mint(sessions=1)["token"]
    for i in range(3):
        ran = stack.run(f"echo {i} >>log", session="files", outputs=["log", "gone"], token=token)
        assert ran.files["log"]["text"] == "".join(f"{n}\n" for n in range(i + 1))
        assert ran.sandbox["session"]["created"] is (i == 0)


@pytest.fixture(scope="module")
def faulty(shared_rig):
    emulator = shared_rig.emulator().view
    gateway = shared_rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    return emulator, gateway


def test_lost_bytes_are_read_again(faulty):
    """In pieces so small that nothing is lost."""
    emulator, gateway = faulty
    with emulator.faulty("lose_bytes_above", bytes=100_000):
        ran = gateway.run(f"{FILL.format(300_000)} >a", outputs=["a"])
    assert base64.b64decode(ran.files["a"]["base64"]) == filled(300_000)


def test_a_sandbox_that_breaks_while_they_are_read(faulty):
    """The command has ended, and that is told."""
    emulator, gateway = faulty
    with emulator.faulty("lose_bytes_above", bytes=10):
        ran = gateway.run("echo 123456789012 >a; echo x", outputs=["a", "b"])
    assert (ran.exit_code, ran.files) == (0, {"a": {"error": "not_read"}, "b": {"error": "not_read"}})


def test_one_that_changes(stack):
    """Somebody touches it for as long as it is read, and it is read in many pieces."""
    ran = stack.run("head -c 3000000 /dev/zero >a; sh -c 'while touch a; do :; done' >/dev/null 2>&1 & exit 0", outputs=["a"],
                    max_output_bytes=4 * MIB, timeout_seconds=60)
    assert ran.files["a"] == {"error": "changed"}


def test_what_was_told_of_one_that_changes_is_not_of_the_next(stack):
    """Every piece of it ends within a character of four bytes."""
    mark, touched = new_mark(), new_mark()
    change = f"sleep {mark}; touch a; exec sleep {touched}"
    with Streamed(stack, receive_buffer=8192, outputs=["a", "b"], max_output_bytes=8 * MIB, timeout_seconds=60,
                  command=f"{{ printf x; yes 🌡🌡🌡🌡 | tr -d '\\n' | head -c {4 * MIB}; }} >a; echo b >b; sh -c '{change}' >/dev/null 2>&1 & exit 0") as streamed:
        objects = iter(streamed)
        while next(objects)["type"] != "file":
            pass
        go_on(mark)
        until(lambda: running(touched), "it has changed")
        for _ in objects:
            pass
    assert streamed.result["files"] == {"a": {"error": "changed"}, "b": {"bytes": 2}} and streamed.files["b"] == b"b\n"
