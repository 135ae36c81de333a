"""Answers that stream: output as it comes, whole characters, one result at the end whatever happens, no faster than the client reads."""
import base64
import json
import time

import pytest

import answers
from processes import new_mark, running
from rig import LARGER, LOGS, SLOWER, check_median, leases, until
from streamed import NDJSON, SSE, Streamed, objects_of

MIB = 1024 * 1024
marks = iter(new_mark, None)
both = pytest.mark.parametrize("kind", [NDJSON, SSE])


def stream(gateway, command, kind=NDJSON, **fields):
    with Streamed(gateway, kind, command=command, **fields) as streamed:
        return streamed.all()


@both
@pytest.mark.smoke
def test_a_command(stack, kind):
    ran = stream(stack, "echo out; echo err >&2; exit 3", kind)
    assert (ran.stdout, ran.stderr) == (b"out\n", b"err\n")
    assert (ran.ok, ran.outcome, ran.exit_code, ran.signal) == (True, "exited", 3, None)
    assert [one["type"] for one in ran.objects][0] == "accepted" and ran.objects[-1]["type"] == "result"
    assert ran.result["encoding"] == {"stdout": "utf-8", "stderr": "utf-8"}
    assert stack.sprites.starts(ran.exec_id) == 1


def test_the_connection_is_kept(stack):
    with Streamed(stack, command="echo one") as first:
        first.all()
        assert stack.sprites.starts(first.exec_id) == 1
        first.wire.ask("GET", "/-/gateway/health")
        assert first.wire.answer().status == 200


@both
def test_output_comes_while_the_command_runs(stack, kind):
    mark = next(marks)
    with Streamed(stack, kind, command=f"echo first; sleep {mark}", timeout_seconds=60) as streamed:
        first = next(one for one in streamed if one["type"] == "stdout")
        assert first["data"] == "first\n"
        until(lambda: running(mark), "the command goes on after its first output came")
    until(lambda: not running(mark), "the command of a client that left is gone")


def test_nothing_is_waited_for_before_accepted(stack):
    mark = next(marks)
    with Streamed(stack, command=f"sleep {mark}", timeout_seconds=60) as streamed:
        assert next(iter(streamed))["type"] == "accepted"
        until(lambda: running(mark), "the command runs", interval=0.005)
    until(lambda: not running(mark), "the command is gone")


@pytest.mark.alone
@pytest.mark.bar
def test_output_is_passed_on_at_once(stack):
    """The median of what a line takes from the command's clock to ours, both being this machine's."""
    def lag():
        stack.until_ready()
        with Streamed(stack, command="for i in $(seq 9); do date +%s%N; sleep 0.05; done") as streamed:
            lags = []
            for one in streamed:
                if one["type"] == "stdout":
                    lags.append(time.time() - int(one["data"].split()[-1]) / 1e9)
        return sorted(lags)[len(lags) // 2]
    check_median(lag, 5 * SLOWER, "the lag of a line", rounds=3)


@pytest.mark.parametrize("data", [
    "aé€🌡" * 30_000, "€" * 11_000, "x" * 32_767 + "🌡" + "y" * 40_000, "\0\n\r\t\"\\\x7f\u2028" * 500,
], ids=["mixed", "three bytes", "at the edge of a piece", "control characters"])
def test_no_character_is_split(stack, data):
    ran = stream(stack, "cat", stdin={"base64": base64.b64encode(data.encode()).decode()})
    assert all(one["encoding"] == "utf-8" for one in ran.objects if one["type"] == "stdout")
    assert ran.stdout.decode() == data


def test_a_character_written_in_two_pieces(stack):
    ran = stream(stack, "printf 'a\\342\\202'; sleep 0.3; printf '\\254b'")
    assert [one["data"] for one in ran.objects if one["type"] == "stdout"] == ["a", "€b"]


def test_a_character_that_is_never_finished(stack):
    ran = stream(stack, "printf 'abc\\342\\202'")
    assert ran.stdout == b"abc\xe2\x82"
    assert ran.result["encoding"] == {"stdout": "base64", "stderr": "utf-8"}


def test_binary_output(stack):
    data = bytes(range(256)) * 1000
    ran = stream(stack, "cat; cat <&- >&2; echo fine >&2", stdin={"base64": base64.b64encode(data).decode()})
    assert ran.stdout == data
    assert ran.stderr.endswith(b"fine\n")
    assert ran.result["encoding"] == {"stdout": "base64", "stderr": "utf-8"}


@both
@pytest.mark.parametrize("cap", [0, 1, 10, 4097])
def test_the_end_is_cut(stack, kind, cap):
    written = "".join(f"{i:09}\n" for i in range(1000)).encode()
    ran = stream(stack, "seq -f %09g 0 999; echo problem >&2", kind, max_output_bytes=cap)
    assert ran.stdout == written[:cap]
    assert ran.stderr == b"problem\n"[:cap]
    assert (ran.stdout_bytes, ran.stdout_truncated) == (10_000, True)
    assert (ran.stderr_bytes, ran.stderr_truncated) == (8, cap < 8)


@pytest.mark.parametrize("cap", range(20, 28))
def test_a_cut_character_is_dropped(stack, cap):
    text = "aé€🌡" * 50
    ran = stream(stack, "cat", stdin=text, max_output_bytes=cap)
    assert ran.stdout.decode() == text.encode()[:cap].decode(errors="ignore")
    assert ran.stdout_truncated is True and ran.result["encoding"]["stdout"] == "utf-8"


@pytest.mark.smoke
def test_ten_megabytes(stack):
    ran = stream(stack, f"python3 -c \"import sys; sys.stdout.write(''.join(f'{{i:09}}\\n' for i in range({MIB})))\"",
                 max_output_bytes=16 * MIB, timeout_seconds=60)
    assert ran.stdout == "".join(f"{i:09}\n" for i in range(MIB)).encode()
    assert ran.output_check in ("none", "verified"), ran.result


def test_timeout(stack):
    ran = stream(stack, "echo before; sleep 60", timeout_seconds=0.5)
    assert (ran.ok, ran.outcome, ran.exit_code, ran.stdout) == (True, "timed_out", None, b"before\n")


@both
def test_refusals_before_the_stream_are_problems(stack, kind):
    headers = {"Accept": kind}
    answers.problem(stack.exec(b"{", headers=headers), 400, "malformed-request")
    answers.problem(stack.exec(headers=headers, argv=[]), 422, "invalid-request")
    answers.problem(stack.exec(token="sgt_0123456789abcdef_wrong", headers=headers, command="true"), 401, "invalid-token")
    token = stack.mint(rate="1/1h", burst=1)["token"]
    assert stack.exec(token=token, headers=headers, command="true").status_code == 200
    answers.problem(stack.exec(token=token, headers=headers, command="true"), 429, "quota-exceeded")


@pytest.mark.parametrize("accept, kind", [
    (None, "application/json"), ("*/*", "application/json"), ("application/json, text/event-stream", "application/json"),
    ("text/html", "application/json"), ("application/x-ndjson;q=0", "application/json"),
    ("application/json;q=0.5, application/x-ndjson;q=0.7", NDJSON), ("APPLICATION/X-NDJSON; charset=utf-8", NDJSON),
    ("text/event-stream, */*;q=0.1", SSE), ("text/html,, , text/event-stream", SSE),
])
def test_accept(stack, accept, kind):
    answer = stack.exec(command="true", headers={"Accept": accept} if accept else {"Accept": ""})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)


def test_http_1_0(stack):
    """Without chunks the end of the connection is the end of the stream."""
    from wire import Wire
    with Wire(stack.port) as wire:
        wire.ask("POST", "/-/agent/exec", f"Authorization: Bearer {stack.token}", "Content-Type: application/json", f"Accept: {NDJSON}",
                 body=b'{"command": "echo old"}', version="HTTP/1.0")
        answer = wire.answer()
    assert answer["Transfer-Encoding"] is None
    types = [json.loads(line)["type"] for line in answer.body.splitlines()]
    assert types == ["accepted", "stdout", "result"]


# --- the client's pace and its leaving ---

@pytest.mark.parametrize("size, check", [(200_000_000, "counted"), (60_000_000, "verified")], ids=["more than a record holds", "compared"])
def test_a_slow_reader_costs_no_memory(rig, size, check):
    """At the pace of a client that at first does not read at all, through a gateway that does not grow, with the record and an audit."""
    gateway = rig.gateway(pool_hot=1, exec_max_output_bytes=size, audit_log=LOGS / f"slow-reader-{size}.log")
    gateway.until_ready()
    gateway.run("true")
    gateway.until_ready()
    before = gateway.forget_peak()
    with Streamed(gateway, receive_buffer=65536, command=f"head -c {size} /dev/zero | tr '\\0' x", max_output_bytes=size,
                  timeout_seconds=100) as streamed:
        streamed.head()
        time.sleep(1)
        count, result = 0, None
        for one in objects_of(streamed.kind, streamed.wire.body(streamed.answer)):
            if one["type"] == "stdout":
                count += len(one["data"])
            result = one
    assert (result["type"], result["outcome"], result["output_check"], count) == ("result", "exited", check, size)
    grown = gateway.peak() - before
    assert grown < 6 * MIB * LARGER, f"the gateway grew by {grown // 1024} KiB"


def test_a_reader_that_does_not_read_meets_the_timeout(stack):
    """The command waits for its reader, and its time goes on."""
    with Streamed(stack, receive_buffer=4096, command="yes", max_output_bytes=64 * MIB, timeout_seconds=1) as streamed:
        streamed.head()
        until(lambda: leases(stack.redis) == 0, "the lease is given back though nobody reads")
        streamed.all()
    assert streamed.outcome == "timed_out"


@pytest.mark.smoke
@pytest.mark.alone
@pytest.mark.bar
@pytest.mark.parametrize("how", ["silent", "printing", "not reading"])
def test_leaving_cancels_within_100_ms(stack, how):
    minted = stack.mint(conc=1)
    lease = f"sg:{{g}}:c:{minted['kid']}"
    commands = {"silent": "trap '' TERM HUP; echo; sleep {0}; sleep {0}", "printing": "sleep {0} & while :; do echo x; sleep 0.01; done",
                "not reading": "sleep {0} & yes"}

    def leave():
        stack.until_ready()
        mark = next(marks)
        with Streamed(stack, token=minted["token"], receive_buffer=4096, command=commands[how].format(mark), timeout_seconds=60,
                      max_output_bytes=64 * MIB) as streamed:
            streamed.head()
            until(lambda: running(mark), "the command runs", interval=0.005)
            if how == "not reading":
                time.sleep(0.5)
            left = time.monotonic()
            streamed.wire.reset()
            until(lambda: not stack.redis.zcard(lease) and not running(mark), "lease and process are gone", interval=0.001)
            return time.monotonic() - left

    check_median(leave, 100 * SLOWER, f"the time from leaving a stream ({how}) to the end")


@both
def test_silence_is_broken_by_pings(stack, kind):
    started = time.monotonic()
    ran = stream(stack, "echo first; sleep 17; echo last", kind, timeout_seconds=60)
    pings = [one for one in ran.objects if one["type"] == "ping"]
    assert len(pings) == 1 and set(pings[0]) == {"type", "at"}
    assert pings[0]["at"] - started >= 14.5
    assert ran.stdout == b"first\nlast\n"


# --- when the Sprite fails ---

@pytest.fixture(scope="module")
def sprites(shared_rig):
    return shared_rig.emulator().view


@pytest.fixture
def gateway(rig, sprites):
    gateway = rig.gateway(emulator=sprites, pool_hot=1, pool_max=4, pool_wait_seconds=4)
    gateway.until_ready()
    yield gateway
    sprites.clear_faults()
    until(lambda: leases(rig.stack.redis) == 0, "every lease is given back")


@pytest.mark.parametrize("fault", ["cut_after_start", "cut_before_output", "cut_after_output", "cut_before_exit", "cut_mid_frame",
                                   "no_exit_code", "kill_vm"])
@both
def test_a_stream_that_breaks_says_so(gateway, sprites, fault, kind):
    """The last object is a result that does not claim more than is known."""
    with sprites.faulty(fault, rate=1):
        with Streamed(gateway, kind, command="echo output; sleep 0.1; exit 7", timeout_seconds=5) as streamed:
            streamed.all()
    assert (streamed.ok, streamed.outcome, streamed.code, streamed.may_have_run) == (False, "unknown", "outcome-unknown", True)
    assert b"output\n".startswith(streamed.stdout)
    assert sprites.starts(streamed.exec_id) <= 1


def test_a_sprite_without_a_control_socket(rig):
    """Each command has a socket of its own on /exec: it streams, waits for its reader and breaks just as well."""
    emulator = rig.emulator().view
    emulator.fault("false_404", rate=1, match={"path": "*/control"})
    gateway = rig.gateway(emulator=emulator, pool_hot=1, pool_max=4)
    gateway.until_ready()
    assert emulator.hits("false_404"), "it has a control socket"
    size = 5_000_000
    with Streamed(gateway, receive_buffer=65536, command=f"head -c {size} /dev/zero | tr '\\0' x; echo end >&2; exit 4",
                  max_output_bytes=size, timeout_seconds=250) as streamed:
        streamed.head()
        time.sleep(0.5)
        streamed.all()
    assert (streamed.outcome, streamed.exit_code, len(streamed.stdout), streamed.stderr) == ("exited", 4, size, b"end\n"), streamed.result
    gateway.until_ready()
    with emulator.faulty("cut_before_exit", rate=1):
        assert stream(gateway, "echo output").outcome == "unknown"


def test_a_sprite_that_stalls(gateway, sprites):
    with sprites.faulty("stall", rate=1):
        with Streamed(gateway, command="echo output; exit 7", timeout_seconds=1) as streamed:
            streamed.all()
    assert streamed.outcome in ("timed_out", "unknown")
    assert streamed.ok == (streamed.outcome == "timed_out")


def test_no_sandbox_is_a_problem(gateway, sprites):
    """Nothing was streamed yet, so the status can still say it."""
    sprites.clear_faults()
    for name in sprites.names():
        sprites.http.delete(f"/v1/sprites/{name}", headers={"Authorization": f"Bearer {sprites.token}"})
    with sprites.faulty("create_500", rate=1):
        answers.not_started(gateway.exec(headers={"Accept": NDJSON}, command="true"))


@pytest.mark.parametrize("lost", [1_000_000, 1_500_000])
def test_output_that_was_lost_follows(rig, sprites, lost):
    """What is missing at the end is fetched from the record and streamed before the result."""
    gateway = rig.gateway(emulator=sprites, pool_hot=1, pool_max=4)
    gateway.until_ready()
    with sprites.faulty("lose_bytes_above", rate=1, bytes=lost):
        ran = stream(gateway, "python3 -c \"import sys; sys.stdout.write(''.join(f'{i:09}\\n' for i in range(200000)))\"",
                     max_output_bytes=4 * MIB, timeout_seconds=30)
    assert ran.outcome == "exited" and ran.output_check in ("recovered", "incomplete"), ran.result
    if ran.output_check == "recovered":
        assert ran.stdout == "".join(f"{i:09}\n" for i in range(200_000)).encode()
    else:
        assert ran.stdout_lost_bytes > 0 and ran.stdout_truncated is True


def test_a_drain_ends_streams_with_a_result(rig):
    gateway = rig.gateway(pool_hot=1, drain_seconds=3)
    gateway.until_ready()
    with Streamed(gateway, command="echo started; sleep 60", timeout_seconds=100) as streamed:
        objects = iter(streamed)
        next(one for one in objects if one["type"] == "stdout")
        gateway.signal(15)
        for _ in objects:
            pass
    assert (streamed.ok, streamed.outcome) == (True, "canceled")
    assert gateway.wait(30) == 0
