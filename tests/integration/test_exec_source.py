"""Standard input from Datasette: with the caller's own credentials, as fast as the command reads, and never short without notice."""
import concurrent.futures
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from answers import is_uuid7, problem
from nasty import PIECE
from processes import new_mark, running
from rig import DATASETTE, LARGER, PYTHON, TOP, Part, client, free_port, httpx, leases, until
from sources import Upstream, failed, shared, upstream  # noqa: F401
from streamed import Streamed
from wire import Wire, exec_request

sys.path.append(str(TOP / "tests/fixtures"))
from sample import SECRET  # noqa: E402

MIB = 1024 * 1024
COUNT = "import sys, csv; print(sum(1 for _ in csv.reader(sys.stdin)))"
marks = iter(new_mark, None)


class Table(Part):
    """A Datasette with one table of about 6 MB."""
    ROWS = 6000

    def __init__(self, folder):
        db = sqlite3.connect(folder / "fixtures.db")
        with db:
            db.execute("create table big (id integer primary key, text text)")
            db.executemany("insert into big values (?, ?)", ((i, f"row {i}, \"quoted\"\n" + "x" * 990) for i in range(self.ROWS)))
        db.close()
        self.port = free_port()
        super().__init__("datasette", [*DATASETTE, "serve", folder / "fixtures.db", "-h", "127.0.0.1", "-p", self.port])
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = client(base_url=self.url)
        self.until_up(self.answers)

    def answers(self):
        try:
            return self.http.get("/-/versions.json").status_code == 200
        except httpx.TransportError:
            return False


def test_a_table_is_counted(rig, tmp_path):
    """6 MB reach the command without passing through its caller, and the gateway does not grow."""
    table = Table(tmp_path)
    rig.add(table, table.kill)
    gateway = rig.gateway(datasette_url=table.url, pool_hot=1)
    gateway.until_ready()
    gateway.run("true", stdin={"datasette": "/-/versions.json"})
    gateway.until_ready()
    before = gateway.forget_peak()
    ran = gateway.run(f"python3 -c '{COUNT}'", stdin={"datasette": "/fixtures/big.csv?_stream=on"}, timeout_seconds=100)
    assert ran.stdout == f"{table.ROWS + 1}\n", ran.json
    grown = gateway.peak() - before
    assert grown < 4 * MIB * LARGER, f"the gateway grew by {grown // 1024} KiB"


@pytest.mark.smoke
def test_the_sample(stack):
    assert stack.run(f"python3 -c '{COUNT}'", stdin={"datasette": "/sample/readings.csv?_stream=on"}, timeout_seconds=100).stdout == "10001\n"
    whole = stack.get("/sample/stations.csv").content
    assert stack.run("cat", stdin={"datasette": "/sample/stations.csv"}).bytes("stdout") == whole


def test_credentials_of_the_caller(stack):
    made = subprocess.run([PYTHON, "-m", "datasette", "create-token", "ann", "--secret", SECRET], capture_output=True, text=True,
                          timeout=60, check=True)
    source = {"command": "cat", "stdin": {"datasette": "/-/actor.json"}}
    assert json.loads(stack.exec(**source).json()["stdout"])["actor"] is None
    answer = stack.exec(headers={"X-Datasette-Authorization": f"Bearer {made.stdout.strip()}"}, **source)
    assert json.loads(answer.json()["stdout"])["actor"]["id"] == "ann"


def test_what_datasette_is_asked(upstream):
    seen = []

    @upstream.on("/db/t.csv")
    def answer(exchange):
        seen.append(exchange)
        exchange.reply(body=b"a,b\n")
    token = upstream.gateway.token
    for headers in ({}, {"Cookie": "ds_actor=a.b", "X-Datasette-Authorization": "Bearer dstok_x", "Range": "bytes=0-1", "Accept": "text/html",
                         "Accept-Encoding": "gzip", "Origin": "http://evil.example", "If-None-Match": "x", "User-Agent": "me"},
                    {"X-Datasette-Authorization": f"Bearer {token}"}):
        assert upstream.exec(source="/db/t.csv?_stream=on&a=%2e%2e/", headers=headers).json()["stdout"] == "a,b\n"
    plain, full, wrong = seen
    assert {exchange.method for exchange in seen} == {"GET"}
    assert {exchange.target for exchange in seen} == {"/db/t.csv?_stream=on&a=%2e%2e/"}
    assert full["Cookie"] == "ds_actor=a.b" and full["Authorization"] == "Bearer dstok_x" and full["User-Agent"] == "me"
    for exchange in seen:
        assert exchange["Host"] == f"127.0.0.1:{upstream.gateway.port}" and exchange["X-Forwarded-For"] == "127.0.0.1"
        assert "spritegate" in exchange["Via"] and is_uuid7(exchange["X-Request-Id"])
        for name in ("Range", "Accept", "Origin", "If-None-Match", "Content-Type", "Content-Length", "Transfer-Encoding",
                     "X-Datasette-Authorization"):
            assert exchange.all(name) == [], (name, exchange.fields)
    assert plain["Cookie"] is None and plain["Authorization"] is None
    assert wrong["Authorization"] is None, "the gateway's own token went to Datasette"


def test_credentials_twice(upstream):
    body = json.dumps({"command": "cat", "stdin": {"datasette": "/x"}}).encode()
    with Wire(upstream.gateway.port) as wire:
        wire.send(exec_request(upstream.gateway.token, body, "X-Datasette-Authorization: Bearer a", "X-Datasette-Authorization: Bearer b"))
        assert wire.answer().json()["code"] == "invalid-authorization"


@pytest.mark.parametrize("target", [
    "", "x", "x/y", "//evil.example/x", "http://evil.example/x", "/a//b", "/a/../b", "/..", "/.", "/a/%2e%2e/b", "/a/%2E./b", "/a/..%2fb",
    "/a%2f%2e%2e", "/a%5c..", "/a\\b", "/a#b", "/a b", "/a\tb", "/é", "/a%0d%0ab", "/a%00", "/a%", "/a%2", "/a%zz",
    "/-/agent/exec", "/-/agent/exec/quota", "/-/agent%2fexec", "/%2d/agent/exec", "/-/AGENT/exec", "/-/agent", "/-/agent/x", "/-/gateway/health",
    "/-/agent;x/exec", "/" + "a" * 8192, "@evil.example/", "?x", "*",
])
def test_targets_that_are_refused(stack, target):
    body = problem(stack.exec(command="cat", stdin={"datasette": target}), 422, "invalid-request")
    assert [error["pointer"] for error in body["errors"]] == ["/stdin/datasette"], body


@pytest.mark.parametrize("stdin, pointer", [
    ({"datasette": 1}, "/stdin"), ({"datasette": None}, "/stdin"), ({"datasette": "/x", "base64": ""}, "/stdin"),
    ({"datasette": "/x", "method": "POST"}, "/stdin"), ([], "/stdin"), ({}, "/stdin")])
def test_sources_of_another_form(stack, stdin, pointer):
    body = problem(stack.exec(command="cat", stdin=stdin), 422, "invalid-request")
    assert [error["pointer"] for error in body["errors"]] == [pointer], body


@pytest.mark.parametrize("status", [204, 206, 301, 302, 304, 400, 401, 403, 404, 500, 503])
def test_what_is_not_200_is_told_and_nothing_runs(upstream, status):
    @upstream.on("/x")
    def answer(exchange):
        exchange.reply(f"{status} Whatever", "Location: /y", length=status not in (204, 304))
    body = failed(upstream.exec(), status)
    assert upstream.sprites.starts(body["exec_id"]) == 0
    assert [exchange.target for exchange in upstream.fake.requests if exchange.target == "/y"] == [], "a redirect was followed"


def test_datasette_does_not_answer(upstream):
    @upstream.on("/x")
    def answer(exchange):
        exchange.hang_up()
    failed(upstream.exec(), None)


def test_datasette_is_away(rig):
    gateway = rig.gateway(datasette_url=f"http://127.0.0.1:{free_port()}", token={"rate": "1/1h", "burst": 1})
    for _ in range(2):
        body = failed(gateway.exec(command="cat", stdin={"datasette": "/x"}), None)
        assert "Datasette" in body["detail"], body
        until(lambda: leases(rig.stack.redis) == 0, "the lease is given back, and the rate with it")


def test_nothing_runs_again_and_again(upstream):
    """A source that failed is no answer to keep: the same key may try again."""
    replies = iter(["500 No", "200 OK"])

    @upstream.on("/x")
    def answer(exchange):
        exchange.reply(next(replies), body=b"now")
    headers = {"Idempotency-Key": "source"}
    failed(upstream.exec(headers=headers), 500)
    answer = until(lambda: (got := upstream.exec(headers=headers)).status_code != 409 and got, "the key is free again")
    assert answer.json()["stdout"] == "now"
    again = until(lambda: (got := upstream.exec(headers=headers)).status_code != 409 and got, "it is replayed")
    assert again.headers["Idempotency-Replayed"] == "true" and again.json()["stdout"] == "now"


def test_an_empty_source_ends_the_input(upstream):
    @upstream.on("/x")
    def answer(exchange):
        exchange.reply()
    assert upstream.run("cat; echo end").stdout == "end\n"


def break_after(upstream, data, how):
    """Once the command, which it gives, runs."""
    mark = next(marks)

    @upstream.on("/x")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked" if how != "length" else f"Content-Length: {len(data) + 1}", length=False)
        if how == "length":
            exchange.send(data)
        else:
            exchange.chunk(data)
        until(lambda: running(mark), "the command runs")
        if how == "nonsense":
            exchange.send(b"zz\r\n")
        exchange.hang_up()
    return f"sleep {mark} & cat; echo whole"


@pytest.mark.parametrize("how", ["chunks", "length", "nonsense"])
@pytest.mark.parametrize("size", [5, 3 * MIB])
def test_a_source_that_breaks_is_no_end_of_input(upstream, how, size):
    command = break_after(upstream, b"x" * size, how)
    body = failed(upstream.exec(command), 200, started=True)
    assert "whole" not in body["stdout"] and "exit_code" not in body, body
    kept = until(lambda: (got := upstream.look(body["exec_id"]))["state"] == "finished" and got, "what it ended with is kept")
    assert (kept["ok"], kept["code"], kept.get("exit_code")) == (False, "source-failed", None), kept


def test_a_source_that_breaks_while_the_answer_streams(upstream):
    command = break_after(upstream, b"some\n", "chunks")
    with Streamed(upstream.gateway, command=command, stdin={"datasette": "/x"}) as streamed:
        streamed.all()
    result = streamed.result
    assert (result["ok"], result["outcome"], result["exit_code"], result["status"]) == (False, "canceled", None, 502), result
    assert (result["code"], result["pointer"], result["source_status"], result["may_have_run"]) == ("source-failed", "/stdin", 200, True), result


def test_a_command_that_has_ended_does_not_care(upstream):
    """Nor is Datasette asked for more."""
    gone = []

    @upstream.on("/x")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"first\n")
        gone.append(exchange.left_within(60))
    assert upstream.run("head -n 1", timeout_seconds=60).stdout == "first\n"
    until(lambda: gone, "the connection to Datasette is closed")
    assert gone[0] is not None


def test_a_slow_command_is_waited_for_in_flat_memory(rig):
    """The source is read as fast as the command reads, and arrives whole."""
    upstream = Upstream(rig)
    size, sent = 96 * MIB, []

    @upstream.on("/x")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        for _ in range(size // len(PIECE)):
            exchange.chunk(PIECE)
            sent.append(len(PIECE))
        exchange.send(b"0\r\n\r\n")
    upstream.on("/small")(lambda exchange: exchange.reply(body=PIECE))
    upstream.run("cat >/dev/null", "/small")
    upstream.gateway.until_ready()
    before = upstream.gateway.forget_peak()
    mark = next(marks)
    with Streamed(upstream.gateway, command=f"head -c 1; sleep {mark} & wait; wc -c", stdin={"datasette": "/x"},
                  timeout_seconds=100) as streamed:
        waiting = until(lambda: running(mark), "the command has stopped reading")
        # What Datasette could send does not grow while nobody reads: it has stopped in the middle.
        until(lambda: stands_still(sent), "Datasette is not read any more")
        assert sum(sent) < size, "a command that does not read is sent everything"
        os.kill(waiting[0], signal.SIGTERM)
        until(lambda: len(sent) * len(PIECE) == size, "the rest is read")
        streamed.all()
    assert (streamed.outcome, streamed.exit_code) == ("exited", 0), streamed.result
    assert int(streamed.stdout[1:]) == size - 1, streamed.stdout
    grown = upstream.gateway.peak() - before
    assert grown < 6 * MIB * LARGER, f"the gateway grew by {grown // 1024} KiB"


def stands_still(sent):
    count = len(sent)
    time.sleep(1)
    return len(sent) == count


def test_no_more_than_the_token_allows(upstream, rig):
    token = rig.mint(max_in="100KiB")["token"]
    size, chunked = 100 * 1024, False

    @upstream.on("/x")
    def answer(exchange):
        if not chunked:
            exchange.reply(body=b"x" * size)
            return
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"x" * size)
        exchange.send(b"0\r\n\r\n")
    assert upstream.run("wc -c", token=token).stdout == f"{size}\n"
    size += 1
    assert "102400 bytes" in failed(upstream.exec("wc -c", token=token), 200)["detail"]
    chunked = True
    body = upstream.exec("wc -c", token=token).json()
    assert body["code"] == "source-failed" and "102400 bytes" in body["detail"], body
    shadowed = rig.mint(max_in="100KiB", shadow="input")["token"]
    assert upstream.run("wc -c", token=shadowed).stdout == f"{size}\n"


def test_leaving_while_datasette_thinks(upstream):
    gone = []

    @upstream.on("/x")
    def answer(exchange):
        gone.append(exchange.left_within(60))
        exchange.hang_up()
    body = json.dumps({"command": "true", "stdin": {"datasette": "/x"}}).encode()
    count = len(upstream.fake.requests)
    with Wire(upstream.gateway.port) as wire:
        wire.send(exec_request(upstream.gateway.token, body))
        until(lambda: len(upstream.fake.requests) > count, "Datasette was asked")
        assert leases(upstream.redis) == 1
    until(lambda: gone, "Datasette is left")
    assert gone[0] is not None


@pytest.mark.parametrize("how", ["delete", "leave"])
def test_canceled_while_it_still_reads(rig, how):
    """What is read after the answer is nobody's: the command's exit is late, and what it has left behind goes on reading."""
    emulator = rig.emulator().view
    fake = rig.upstream()

    @fake.on("/x")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        while True:
            exchange.chunk(PIECE)
    gateway = rig.gateway(emulator=emulator, datasette_url=fake.url, pool_hot=2)
    read = "import os, time\nwhile os.read(0, 4096): time.sleep(0.001)"
    for _ in range(4):
        gateway.until_ready()
        mark = next(marks)
        with emulator.faulty("stall", on="exit", delay_ms=1000), \
                Streamed(gateway, command=f"exec 3<&0; setsid python3 -c '{read}' <&3 & sleep {mark}", stdin={"datasette": "/x"}) as streamed:
            streamed.head()
            until(lambda: running(mark), "the command runs")
            if how == "delete":
                gateway.http.delete(f"/-/agent/exec/{streamed.answer['X-Exec-Id']}", headers={"Authorization": f"Bearer {gateway.token}"})
                streamed.all()
                assert streamed.outcome == "canceled", streamed.result
        until(lambda: gateway.metrics().get("spritegate_exec_running") == 0, "it is over")
        until(lambda: not running(mark), "nothing of it is left")
    assert gateway.run("echo on").stdout == "on\n"


def test_what_waits_for_datasette_counts_as_buffered(rig):
    """Sixteen of the largest bodies: more are refused, not kept."""
    go = threading.Event()
    fake = rig.upstream()

    @fake.on("/x")
    def answer(exchange):
        go.wait(60)
        exchange.reply(body=b"here")
    gateway = rig.gateway(datasette_url=fake.url, workers=1, exec_max_body_bytes="64KiB", pool_hot=1, token={"conc": 40})
    body = {"command": "cat", "stdin": {"datasette": "/x"}, "files": {"f": "x" * 60_000}}
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        try:
            waiting = [pool.submit(gateway.exec, **body) for _ in range(16)]
            until(lambda: leases(rig.stack.redis) == 16, "sixteen wait")
            more = [pool.submit(gateway.exec, **body) for _ in range(4)]
            until(lambda: sum(one.done() for one in more) >= 3, "what would be too much is refused")
            assert {one.result().status_code for one in more if one.done()} == {503}
        finally:
            go.set()
        assert sum(one.result().status_code == 200 for one in waiting) >= 1
    assert gateway.run(**body).stdout == "here"


def test_the_timeout_holds_while_the_source_goes_on(upstream):
    @upstream.on("/x")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        while True:
            exchange.chunk(PIECE)
    ran = upstream.run("cat >/dev/null", timeout_seconds=2)
    assert ran.outcome == "timed_out"
    ran = upstream.run("sleep 100", timeout_seconds=2)
    assert ran.outcome == "timed_out"


def test_another_sandbox_gets_all_of_it(rig):
    """The first one refuses the command when it has been sent the beginning."""
    emulator = rig.emulator().view
    fake = rig.upstream()
    data = bytes(range(256)) * 500

    @fake.on("/x")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        for i in range(0, len(data), 1000):
            exchange.chunk(data[i:i + 1000])
        exchange.send(b"0\r\n\r\n")
    gateway = rig.gateway(emulator=emulator, datasette_url=fake.url, pool_hot=2, pool_ahead=0)
    gateway.until_ready()
    with emulator.faulty("op_error", count=1):
        ran = gateway.run("cat", stdin={"datasette": "/x"}, max_output_bytes=MIB, timeout_seconds=60)
        assert emulator.hits("op_error") == 1
    assert ran.bytes("stdout") == data


def test_it_is_counted(upstream):
    before = upstream.gateway.metrics()
    upstream.on("/x")(lambda exchange: exchange.reply("403 Forbidden"))
    failed(upstream.exec(), 403)
    failed(upstream.exec(break_after(upstream, b"x", "chunks")), 200, started=True)
    after = upstream.gateway.metrics()
    for name, labels in (("spritegate_exec_decisions_total", {"outcome": "error", "reason": "source"}),
                         ("spritegate_exec_killed_total", {"reason": "source"}),
                         ("spritegate_upstream_requests_total", {"code_class": "4xx"}),
                         ("spritegate_upstream_errors_total", {"kind": "truncated"})):
        assert after.get(name, **labels) == before.get(name, **labels) + 1, name
