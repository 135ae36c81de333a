"""Standard output as rows into a real Datasette, by its write API: batches, formats, refusals, where to resume."""
import itertools
import json
import pathlib
import re
import subprocess
import threading
import time

import pytest

from answers import problem
from processes import new_mark, running
from rig import PATIENCE, PYTHON, clean_environment, client, until
from sources import shared, upstream  # noqa: F401
from streamed import Streamed

MIB = 1024 * 1024
numbers = itertools.count(1)
ROWS = 'python3 -c "import json; print(json.dumps([{{\'id\': i, \'text\': str(i)}} for i in range({}, {})]))"'
LINES = 'python3 -c "import json; [print(json.dumps({{\'id\': i, \'text\': str(i)}})) for i in range({}, {})]"'
LARGE = '''python3 -c "import json, sys; print('begun', file=sys.stderr); [print(json.dumps({{'id': i, 'text': 'x' * 32_000}})) for i in range({})]"'''
CSV = "echo id,text; seq {} {} | sed 's/.*/&,&/'"


@pytest.fixture
def table(stack):
    """Its name; made by whoever writes to it first."""
    name = f"written_{next(numbers)}"
    yield name
    # Its answer has a cookie that Datasette fails over when it streams CSV.
    with client(base_url=stack.http.base_url) as own:
        own.post(f"/sample/{name}/-/drop", json={"confirm": True})


def rows_of(stack, table):
    answer = stack.get(f"/sample/{table}.json?_shape=array&_size=max&_sort=id")
    assert answer.status_code == 200, answer.text
    return answer.json()


def count(stack, table, database="sample"):
    return stack.get(f"/{database}/{table}.json?_shape=objects&_size=0&_extra=count").json()["count"]


def create(table, **more):
    return {"datasette": "/sample/-/create", "table": table, "pk": "id", **more}


def wrote(rows, batches, resume_from=None, error=None, in_doubt=0):
    return {"rows_written": rows, "batches": batches, "rows_in_doubt": in_doubt, "resume_from": rows if resume_from is None else resume_from,
            "error": error}


@pytest.mark.smoke
@pytest.mark.parametrize("command, text", [(ROWS.format(0, 3), str), (LINES.format(0, 3), str), (CSV.format(0, 2), str)], ids=["json", "ndjson", "csv"])
def test_formats(stack, table, command, text):
    ran = stack.run(f"{command}; echo told >&2; exit 3", stdout_to=create(table))
    assert (ran.exit_code, ran.stdout, ran.stderr, ran.stdout_to) == (3, "", "told\n", wrote(3, 1)), ran.json
    assert [(int(row["id"]), row["text"]) for row in rows_of(stack, table)] == [(i, text(i)) for i in range(3)]


def test_batches_in_order(stack, table):
    ran = stack.run(LINES.format(0, 1250), stdout_to=create(table))
    assert ran.stdout_to == wrote(1250, 13)
    assert count(stack, table) == 1250


def test_large(stack, table):
    """More than is ever held, from Datasette through a command into Datasette."""
    ran = stack.run("head -n 4001 | cut -d, -f1,2,3", stdin={"datasette": "/sample/readings.csv?_stream=on"}, stdout_to=create(table, alter=True), timeout_seconds=120)
    assert ran.stdout_to == wrote(4000, 40), ran.json
    assert count(stack, table) == 4000


def test_insert_upsert_and_replace(stack, table):
    assert stack.run(ROWS.format(0, 5), stdout_to=create(table)).stdout_to == wrote(5, 1)
    insert, upsert = {"datasette": f"/sample/{table}/-/insert"}, {"datasette": f"/sample/{table}/-/upsert"}
    assert stack.run(ROWS.format(5, 7), stdout_to=insert).stdout_to == wrote(2, 1)
    assert stack.run("echo '[{\"id\": 6, \"text\": \"new\"}, {\"id\": 7, \"text\": \"x\"}]'", stdout_to=upsert).stdout_to == wrote(2, 1)
    assert stack.run(ROWS.format(0, 2), stdout_to=insert | {"ignore": True}).stdout_to == wrote(2, 1)
    assert stack.run("echo '[{\"id\": 0, \"text\": \"zero\"}]'", stdout_to=insert | {"replace": True}).stdout_to == wrote(1, 1)
    assert [row["text"] for row in rows_of(stack, table)] == ["zero", "1", "2", "3", "4", "5", "new", "x"]


def test_a_refused_batch_and_resuming(stack, table):
    """All before it is written, nothing of it and nothing after it."""
    to = {"datasette": f"/sample/{table}/-/insert"}
    stack.run("echo '[{\"id\": 250, \"text\": \"there\"}]'", stdout_to=create(table))
    ran = stack.run(LINES.format(0, 1000), stdout_to=to)
    found = ran.stdout_to
    assert (ran.exit_code, found["error"]["status"], found["error"]["row"]) == (0, 400, 200), found
    assert "UNIQUE constraint failed" in found["error"]["detail"] and found["resume_from"] == found["rows_written"] == 200 and found["rows_in_doubt"] == 0
    assert count(stack, table) == 201
    ran = stack.run(LINES.format(0, 1000), stdout_to=to | {"ignore": True, "skip_rows": found["resume_from"]})
    assert ran.stdout_to == wrote(800, 8, resume_from=1000)
    assert count(stack, table) == 1000


@pytest.mark.parametrize("command, row, detail", [
    (LINES.format(0, 150) + "; echo nonsense", 150, "no JSON object"), (LINES.format(0, 150) + "; echo '{\"id\": 1'", 150, "ends within a row"),
    (CSV.format(0, 149) + "; echo 1,2,3", 150, "more fields"), ("printf '{\"id\": 1, \"id\": 2}'", 0, "the same name"),
    ("printf '[1]'", 0, "no JSON object"), ("printf 'id,id\\n1,1\\n'", 0, "twice")])
def test_rows_that_cannot_be_read(stack, table, command, row, detail):
    """Those before it are written."""
    ran = stack.run(command, stdout_to=create(table))
    error = ran.stdout_to["error"]
    assert (error["row"], error["status"], ran.stdout_to["rows_written"]) == (row, None, row) and detail in error["detail"], ran.stdout_to
    assert row == 0 or count(stack, table) == row


def test_nothing_printed(stack, table):
    ran = stack.run("true", stdout_to=create(table))
    assert ran.stdout_to == wrote(0, 0)
    ran = stack.run(ROWS.format(0, 3), stdout_to=create(table, skip_rows=10))
    assert ran.stdout_to == wrote(0, 0, resume_from=3)


def test_as_the_caller(stack):
    """Only root writes to `readonly`; a token of its own is the proof."""
    import sample
    made = subprocess.run([PYTHON, "-m", "datasette", "create-token", "root", "--secret", sample.SECRET], env=clean_environment(None),
                          capture_output=True, text=True, timeout=PATIENCE, check=True)
    to = {"datasette": "/readonly/-/create", "table": f"by_root_{next(numbers)}", "pk": "id"}
    ran = stack.run(ROWS.format(0, 3), stdout_to=to)
    assert (ran.stdout_to["error"]["status"], ran.stdout_to["error"]["row"], ran.stdout_to["rows_written"]) == (403, 0, 0), ran.stdout_to
    answer = stack.exec(command=ROWS.format(0, 3), stdout_to=to, headers={"X-Datasette-Authorization": f"Bearer {made.stdout.strip()}"})
    assert answer.json()["stdout_to"] == wrote(3, 1), answer.text
    assert count(stack, to["table"], "readonly") == 3


def test_streamed(stack, table):
    with Streamed(stack, command=f"{LINES.format(0, 250)}; echo done >&2", stdout_to=create(table)) as streamed:
        streamed.all()
    assert (streamed.stdout, streamed.stderr, streamed.result["stdout_to"]) == (b"", b"done\n", wrote(250, 3))


def test_timed_out(stack, table):
    """What was printed is written, but no row that was not finished."""
    ran = stack.run("echo id,text; echo 1,a; printf 2,b; sleep 600", stdout_to=create(table), timeout_seconds=10)
    assert (ran.outcome, ran.stdout_to["rows_written"], ran.stdout_to["error"]["row"]) == ("timed_out", 1, 1), ran.json
    assert [row["text"] for row in rows_of(stack, table)] == ["a"]


def test_no_more_than_allowed(stack, table):
    ran = stack.run(LINES.format(0, 100_000), stdout_to=create(table), max_output_bytes=20_000)
    assert ran.stdout_truncated and "ends within" in ran.stdout_to["error"]["detail"] or "longer than" in ran.stdout_to["error"]["detail"], ran.stdout_to
    assert 0 < ran.stdout_to["rows_written"] == count(stack, table) == ran.stdout_to["resume_from"]


def test_no_resuming_where_output_may_be_lost(stack, table):
    """Its record is gone: what is missing may be in the middle."""
    ran = stack.run(f"{LINES.format(0, 10_000)}; rm -rf /tmp/.spritegate", stdout_to=create(table))
    assert (ran.exit_code, ran.output_check, ran.stdout_to["resume_from"]) == (0, "failed", None), ran.json
    assert "Rows may be missing" in ran.stdout_to["error"]["detail"] and ran.stdout_to["rows_written"] == count(stack, table) == 10_000, ran.json


def test_with_a_key_it_is_written_once(stack, table):
    fields = {"command": ROWS.format(0, 3), "stdout_to": create(table)}
    headers = {"Idempotency-Key": f"rows-{table}"}
    first = stack.exec(headers=headers, **fields)
    again = until(lambda: (got := stack.exec(headers=headers, **fields)).status_code == 200 and got, "it is replayed")
    assert first.json()["stdout_to"] == again.json()["stdout_to"] == wrote(3, 1) and again.headers["Idempotency-Replayed"] == "true"
    assert count(stack, table) == 3


@pytest.mark.parametrize("path", ["/sample", "/sample/notes", "/sample/-/execute-write", "/sample/notes/-/drop", "/sample/notes/1/-/delete", "//h/-/create",
                                  "http://h/a/-/create", "/sample/../x/-/create", "/-/agent/-/insert", "/sample/-/create?x=1", "/s%61mple/-/create"])
def test_nothing_else_is_written_to(stack, path):
    body = problem(stack.exec(command="true", stdout_to={"datasette": path, "table": "t"}), 422, "invalid-request")
    assert body["errors"][0]["pointer"] == "/stdout_to/datasette", body


# --- a Datasette that misbehaves ---------------------------------------------------------------------------

INSERT = "/db/t/-/insert"


def test_what_datasette_gets(upstream):
    upstream.fake.requests.clear()
    bodies = []

    @upstream.on(INSERT)
    def created(exchange):
        bodies.append(json.loads(exchange.read()))
        exchange.reply("201 Created", body=b"{}")
    answer = upstream.gateway.exec(command=ROWS.format(0, 150), stdout_to={"datasette": INSERT, "alter": True},
                                   headers={"X-Datasette-Authorization": "Bearer dstok_x", "Cookie": "ds_actor=a"})
    assert answer.json()["stdout_to"] == wrote(150, 2), answer.text
    requests = [exchange for exchange in upstream.fake.requests if exchange.target == INSERT]
    assert [exchange.method for exchange in requests] == ["POST", "POST"]
    for exchange in requests:
        assert (exchange["Authorization"], exchange["Cookie"], exchange["Content-Type"]) == ("Bearer dstok_x", "ds_actor=a", "application/json")
    assert all(body["alter"] is True for body in bodies)
    assert [len(body["rows"]) for body in bodies] == [100, 50]
    assert [row["id"] for body in bodies for row in body["rows"]] == list(range(150))


ENDS = {"complete", "refused", "in_doubt", "stopped"}


def counted(gateway):
    metrics = gateway.metrics()
    return {result: metrics.get("spritegate_exec_rows_total", result=result) for result in ("written", "in_doubt")} | {
        f"ends_{result}": metrics.get("spritegate_exec_row_writers_total", result=result) for result in ENDS}


@pytest.mark.parametrize("how, in_doubt, status", [("403", 0, 403), ("302", 0, 302), ("500", 100, 500), ("hang up", 100, None)])
def test_a_batch_that_is_not_written_is_the_last(upstream, how, in_doubt, status):
    asked = []

    @upstream.on(INSERT)
    def answer(exchange):
        exchange.read()
        asked.append(exchange)
        if len(asked) == 1:
            exchange.reply("201 Created", body=b"{}")
        elif how == "hang up":
            exchange.hang_up()
        else:
            exchange.reply(f"{how} X", body=b'{"ok": false, "errors": ["because"]}')
    before = counted(upstream.gateway)
    ran = upstream.gateway.run(LINES.format(0, 1000), stdout_to={"datasette": INSERT})
    found = ran.stdout_to
    assert (found["rows_written"], found["rows_in_doubt"], found["error"]["row"], found["error"]["status"]) == (100, in_doubt, 100, status), found
    assert status is None or "because" in found["error"]["detail"]
    assert len(asked) == 2, "nothing was written after it"
    ends = "in_doubt" if in_doubt else "refused"
    after = counted(upstream.gateway)
    assert {name: after[name] - before[name] for name in after} == {"written": 100, "in_doubt": in_doubt, f"ends_{ends}": 1} | {
        f"ends_{other}": 0 for other in ENDS - {ends}}


def test_a_command_waits_for_datasette(upstream):
    """What it prints is more than all the pipes and sockets hold: it stands still until Datasette has written the first rows."""
    go_on, mark, rows = threading.Event(), new_mark(), 1600

    @upstream.on(INSERT)
    def answer(exchange):
        exchange.read()
        go_on.wait(60)
        exchange.reply("201 Created", body=b"{}")

    def stands_still():
        (pid,) = running(mark)
        printed = []
        for _ in range(20):
            printed.append(re.search(r"wchar: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text())[1])
            time.sleep(0.05)
        return len(set(printed)) == 1
    try:
        with Streamed(upstream.gateway, command=f"{LARGE.format(rows)} {mark}; echo ended >&2", stdout_to={"datasette": INSERT}, timeout_seconds=200,
                      max_output_bytes=64 * MIB) as streamed:
            for found in streamed:
                if streamed.stderr == b"begun\n" and not go_on.is_set():
                    until(stands_still, "it waits")
                    go_on.set()
    finally:
        go_on.set()
    assert streamed.result["stdout_to"]["rows_written"] == rows, streamed.result
    assert streamed.stderr == b"begun\nended\n"


@pytest.mark.parametrize("command, outcome, exit_code, rows", [
    ("echo id; seq 250; exit 3", "exited", 3, 250), ("echo id; seq 250; trap '' TERM; sleep 600", "timed_out", None, 250)], ids=["ended", "runs"])
def test_the_time_is_over_while_rows_wait(upstream, command, outcome, exit_code, rows):
    """A command that had ended by then is told so, and no other; what it printed is written."""
    over = threading.Event()

    @upstream.on(INSERT)
    def answer(exchange):
        exchange.read()
        over.wait(60)
        exchange.reply("201 Created", body=b"{}")
    later = threading.Timer(5, over.set)
    later.start()
    try:
        ran = upstream.gateway.run(command, stdout_to={"datasette": INSERT}, timeout_seconds=4)
    finally:
        later.cancel()
        over.set()
    assert (ran.outcome, ran.exit_code, ran.stdout_to["rows_written"]) == (outcome, exit_code, rows), ran.json
    assert (ran.stdout_to["error"] is None) == (outcome == "exited"), ran.json


def test_datasette_takes_no_rows_until_the_time_is_over(upstream):
    """They are dropped then, and how the command ended is seen behind them."""
    over = threading.Event()

    @upstream.on(INSERT)
    def answer(exchange):
        exchange.read()
        over.wait(60)
        exchange.hang_up()
    try:
        ran = upstream.gateway.run("echo id; seq 250; exit 3", stdout_to={"datasette": INSERT}, timeout_seconds=2)
    finally:
        over.set()
    found = ran.stdout_to
    assert (ran.outcome, ran.exit_code, found["rows_written"], found["rows_in_doubt"], found["resume_from"]) == ("exited", 3, 0, 200, 0), ran.json
    assert (found["error"]["row"], found["error"]["detail"]) == (0, "Datasette did not take the rows in time."), ran.json


def test_rows_still_come_when_the_time_is_over(rig, upstream):
    """Of a command that has ended by then. Datasette takes them at once, so none is waited for; they are few at a time and all are written."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, datasette_url=upstream.fake.url, datasette_insert_rows=5)

    @upstream.on(INSERT)
    def answer(exchange):
        exchange.read()
        exchange.reply("201 Created", body=b"{}")
    with emulator.view.faulty("slow_drip", bytes=10, delay_ms=80):
        ran = gateway.run("echo id; seq 250; exit 3", stdout_to={"datasette": INSERT}, timeout_seconds=2)
    assert (ran.outcome, ran.exit_code, ran.stdout_to) == ("exited", 3, wrote(250, 50)), ran.json


@pytest.mark.parametrize("rest, detail", [("", "The command was canceled."), ("{", "The output ends within a row.")], ids=["whole", "unfinished"])
def test_canceled(upstream, rest, detail):
    """All that it printed is written, but for an unfinished row."""
    upstream.on(INSERT)(lambda exchange: (exchange.read(), exchange.reply("201 Created", body=b"{}")))
    with Streamed(upstream.gateway, command=f"{LINES.format(0, 150)}; printf '%s' '{rest}'; echo x >&2; sleep 600", stdout_to={"datasette": INSERT},
                  timeout_seconds=200) as streamed:
        for found in streamed:
            if found["type"] == "stderr":
                upstream.gateway.http.delete(f"/-/agent/exec/{streamed.exec_id}", headers={"Authorization": f"Bearer {upstream.gateway.token}"})
    found = streamed.result["stdout_to"]
    assert (streamed.outcome, found["rows_written"], found["rows_in_doubt"], found["resume_from"]) == ("canceled", 150, 0, 150), found
    assert found["error"]["detail"] == detail


def test_killed_while_it_writes(upstream):
    """What was under way is in doubt, and told."""
    asked, go_on = threading.Event(), threading.Event()

    @upstream.on(INSERT)
    def answer(exchange):
        exchange.read()
        asked.set()
        go_on.wait(60)
        exchange.hang_up()
    with Streamed(upstream.gateway, command=f"trap '' TERM; {LINES.format(0, 150)}; echo x >&2; sleep 600", stdout_to={"datasette": INSERT},
                  timeout_seconds=200) as streamed:
        for found in streamed:
            if found["type"] == "stderr":
                assert asked.wait(60)
                for _ in range(2):
                    upstream.gateway.http.delete(f"/-/agent/exec/{streamed.exec_id}", headers={"Authorization": f"Bearer {upstream.gateway.token}"})
    go_on.set()
    found = streamed.result["stdout_to"]
    assert (streamed.outcome, found["rows_written"], found["rows_in_doubt"], found["resume_from"]) == ("canceled", 0, 100, 0), found
    assert found["error"]["detail"] == "The command's end was not seen."


def test_the_cache_forgets(rig, upstream):
    """An answer that was kept before the rows came is not given after."""
    gateway = rig.gateway(datasette_url=upstream.fake.url, cache_bytes="4MiB", workers=1)
    pages = itertools.count()
    upstream.on("/db/t.json")(lambda exchange: exchange.reply("200 OK", "Cache-Control: max-age=600", "Content-Type: application/json", body=b"%d" % next(pages)))
    upstream.on(INSERT)(lambda exchange: (exchange.read(), exchange.reply("201 Created", body=b"{}")))
    assert [gateway.get("/db/t.json").text for _ in range(2)] == ["0", "0"]
    assert gateway.run(ROWS.format(0, 3), stdout_to={"datasette": INSERT}).stdout_to == wrote(3, 1)
    assert gateway.get("/db/t.json").text == "1"
