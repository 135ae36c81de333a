"""The audit: one record a decision and a run, in a file and in a table of a real Datasette."""
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest

import rig as rigs
from answers import problem
from policy_store import lease_of
from processes import new_mark, running
from rig import DATASETTE, LOGS, PYTHON, Part, client, free_port, numbers, until
from streamed import Streamed

SECRET = "secret of the audit tests"
WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MEMBERS = ("id time record instance exec_id request_id trace_id client kid actor policy policy_version shadow decision reason by code "
           "command_sha256 command stdin_bytes granted_ms egress sandbox tier outcome exit_code wait_ms wall_ms stdout_bytes stderr_bytes "
           "lost").split()


def digest(*argv):
    return hashlib.sha256("".join(word + "\0" for word in argv).encode()).hexdigest()


def records(path):
    lines = [json.loads(line) for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]
    for line in lines:
        assert list(line) == MEMBERS and WHEN.fullmatch(line["time"]), line
    return lines


def about(path, exec_id, kind, what="the record is there"):
    def found():
        return next((line for line in records(path) if (line["exec_id"], line["record"]) == (exec_id, kind)), None)
    return until(found, lambda: f"{what}: {exec_id} {kind}")


@pytest.fixture
def path():
    return LOGS / f"audit-{next(numbers)}.log"


def test_a_decision_and_a_run(rig, path):
    gateway = rig.gateway(audit_log=path, token={"actor": "ann", "egress": "a.test,b.test", "shadow": "rate", "rate": "1/1d", "burst": 1})
    gateway.run("true")
    answer = gateway.exec(command="echo 12; echo 3 >&2; exit 3", stdin="abcd", timeout_seconds=20)
    exec_id = answer.json()["exec_id"]
    decision, run = about(path, exec_id, "decision"), about(path, exec_id, "run")
    sha = digest("bash", "-lc", "echo 12; echo 3 >&2; exit 3")
    none = {"policy": None, "command": None, "code": None, "lost": None}
    assert decision.items() >= {"id": f"{answer.headers['X-Request-Id']}/decision", "instance": gateway.instance, "kid": gateway.kid, "actor": "ann",
                                "request_id": answer.headers["X-Request-Id"], "client": "127.0.0.1", "policy_version": 1,
                                "decision": "allow", "reason": "granted", "shadow": ["rate"], "command_sha256": sha, "stdin_bytes": 4,
                                "granted_ms": 20_000, "outcome": None, "sandbox": None, **none}.items()
    assert run.items() >= {"id": f"{exec_id}/run", "kid": gateway.kid, "actor": "ann", "command_sha256": sha, "outcome": "exited",
                           "exit_code": 3, "tier": "cold", "stdin_bytes": 4, "granted_ms": 20_000, "stdout_bytes": 3, "stderr_bytes": 2,
                           "egress": "a.test b.test", "decision": None, **none}.items()
    assert run["sandbox"].startswith("sg-") and run["wall_ms"] >= 0 and run["wait_ms"] >= 0
    assert len([line for line in records(path) if line["exec_id"] == exec_id]) == 2
    assert oct(path.stat().st_mode & 0o777) == "0o640"


def test_standard_input_from_datasette(rig, path):
    """Its length is known when it was sent; files do not count."""
    gateway = rig.gateway(audit_log=path)
    page = {"datasette": "/sample/stations.csv"}
    size = len(gateway.get(page["datasette"]).content)
    for fields, asked, sent in (({"stdin": page, "files": {"a": "x" * 100, "b": page}}, None, size), ({"stdin": "abc", "files": {"b": page}}, 3, 3)):
        exec_id = gateway.exec(command="wc -c", **fields).json()["exec_id"]
        assert [about(path, exec_id, kind)["stdin_bytes"] for kind in ("decision", "run")] == [asked, sent], fields


def test_refusals_and_runs_that_did_not_end_by_themselves(rig, path):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, audit_log=path, pool_hot=1, token={"cmd": "ls,bash", "policy": None})
    secret = gateway.token.rpartition("_")[2]
    for answer, want in (
            (gateway.exec(argv=["cat", "x"]), {"decision": "deny", "reason": "command", "code": "command-denied", "kid": gateway.kid,
                                               "command_sha256": digest("cat", "x")}),
            (gateway.exec(token="sgt_nonsense", command="true"), {"decision": "deny", "code": "invalid-token", "kid": None,
                                                                  "command_sha256": None}),
            (gateway.exec(body=b"{"), {"code": "malformed-request", "actor": None})):
        decision = about(path, answer.headers["X-Exec-Id"], "decision")
        assert decision.items() >= want.items()
        assert not [line for line in records(path) if line["exec_id"] == answer.headers["X-Exec-Id"] and line["record"] == "run"]
    gateway.until_ready()
    with emulator.view.faulty("cut_before_exit"):
        answer = gateway.exec(command="true")
        assert about(path, problem(answer, 502, "outcome-unknown")["exec_id"], "run").items() >= {
            "outcome": "unknown", "exit_code": None, "code": "outcome-unknown"}.items()
    answer = gateway.exec(command="sleep 60", timeout_seconds=0.2)
    assert about(path, answer.json()["exec_id"], "run").items() >= {"outcome": "timed_out", "exit_code": None}.items()
    text = path.read_text(encoding="utf-8")
    assert secret not in text and "sleep 60" not in text, "no secret, and no command unless it is asked for"


def test_who_ended_a_command(rig, path):
    """As far as that can be known: the command line says it, the admin listener sees an address, an owner is named by the token."""
    redis, admin = rig.redis(), {"Authorization": "Bearer " + "a" * 32}
    gateway = rig.gateway(redis=redis, audit_log=path, admin_token="a" * 32)
    owner = {"Authorization": f"Bearer {gateway.token}"}
    other = rig.gateway(redis=redis, token=False)
    host = socket.gethostname()

    def cli(*words, **who):
        env = rigs.clean_environment({"SPRITEGATE_REDIS_URL": redis.url, "SPRITEGATE_PEPPER": rig.stack.pepper, **{"SUDO_USER": "", "USER": "", **who}})
        subprocess.run([rigs.BINARY, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=rigs.PATIENCE, check=True)
        return redis.client.xrevrange("sg:{g}:audit", count=1)[0][1].get("by")

    def told(end, by, reason="killed"):
        mark = new_mark()
        with Streamed(gateway, command=f"sleep {mark}", timeout_seconds=200) as streamed:
            exec_id = streamed.head()["X-Exec-Id"]
            until(lambda: running(mark), "it runs")
            end(exec_id)
            streamed.all()
        run = about(path, exec_id, "run")
        assert (run["outcome"], run["reason"], run["by"]) == ("canceled", reason, by), run
        decision = about(path, exec_id, "decision")
        assert decision["by"] is None

    def kill(name, **who):
        def end(exec_id):
            assert cli("lease", "kill", lease_of(exec_id), **who) == name
        told(end, name)

    told(lambda exec_id: gateway.admin_http.delete(f"/status/commands/{exec_id}", headers=admin), "admin:127.0.0.1")
    kill(f"olga@{host}", USER="olga")
    kill(f"ann@{host}", USER="root", SUDO_USER="ann")
    kill(f"uid{os.getuid()}@{host}")
    kill(None, USER="no name")
    told(lambda exec_id: other.http.delete(f"/-/agent/exec/{exec_id}", headers=owner), None, reason=None)
    told(lambda exec_id: cli("token", "revoke", "--kill", gateway.kid, USER="olga"), f"olga@{host}")


def test_the_first_who_ended_a_command_is_told(rig, path):
    """Marks come on top of each other: of a lease and its token, and while a command that was canceled on the status page tidies up."""
    redis = rig.redis()
    gateway = rig.gateway(redis=redis, audit_log=path, admin_token="a" * 32)
    marks = [new_mark() for _ in range(4)]
    streams = [Streamed(gateway, command=f"trap '' TERM; sleep {mark}; sleep {mark}", timeout_seconds=200) for mark in marks]
    ids = [stream.head()["X-Exec-Id"] for stream in streams]
    until(lambda: all(running(mark) for mark in marks), "they run")
    elsewhere = client(base_url=gateway.admin, transport=httpx.HTTPTransport(local_address="127.0.0.2"))
    with elsewhere:
        for http, exec_id in ((gateway.admin_http, ids[3]), (elsewhere, ids[3]), (gateway.admin_http, ids[0])):
            answer = http.delete(f"/status/commands/{exec_id}", headers={"Authorization": "Bearer " + "a" * 32})
            assert answer.status_code == 202, answer.text
    with redis.client.pipeline() as both:
        for name, by in ((lease_of(ids[1]), "ann"), (gateway.kid, "olga")):
            both.set(f"sg:{{g}}:kill:{name}", name, px=60_000)
            both.set(f"sg:{{g}}:by:{name}", f"{name} {by}", px=60_000)
        both.execute()
    for stream in streams:
        stream.all()
        stream.wire.close()
    runs = [about(path, exec_id, "run") for exec_id in ids]
    assert [(run["reason"], run["by"]) for run in runs] == [
        ("killed", "admin:127.0.0.1"), ("killed", "ann"), ("killed", "olga"), ("killed", "admin:127.0.0.1")]


def test_who_canceled_is_told_when_the_lease_is_lost_before_the_end(rig, path):
    """It is renewed after 20 s, while the command does not heed TERM."""
    redis, mark = rig.redis(), new_mark()
    gateway = rig.gateway(redis=redis, audit_log=path, admin_token="a" * 32)
    with Streamed(gateway, command=f"trap '' TERM; sleep {mark}; sleep {mark}", timeout_seconds=200) as streamed:
        exec_id = streamed.head()["X-Exec-Id"]
        begun = time.monotonic()
        until(lambda: running(mark), "it runs")
        redis.client.delete(f"sg:{{g}}:c:{gateway.kid}")
        time.sleep(max(0, begun + 19.2 - time.monotonic()))
        assert gateway.admin_http.delete(f"/status/commands/{exec_id}", headers={"Authorization": "Bearer " + "a" * 32}).status_code == 202
        streamed.all()
    run = about(path, exec_id, "run")
    assert (run["reason"], run["by"]) == ("killed", "admin:127.0.0.1"), run


def test_the_text_of_commands_when_it_is_asked_for(rig, path):
    gateway = rig.gateway(audit_log=path, audit_commands=1)
    long = "true " + "x" * 100_000 + ' "\u00e9\n'
    for fields, text in (({"command": 'echo "a\tb"'}, 'echo "a\tb"'), ({"argv": ["printf", "%s", "\u00fc"]}, ["printf", "%s", "\u00fc"]),
                         ({"command": long}, long)):
        exec_id = gateway.exec(**fields).json()["exec_id"]
        assert about(path, exec_id, "decision")["command"] == text
        assert about(path, exec_id, "run")["command"] is None


def test_files_that_are_rotated_lose_nothing(rig, path):
    access = LOGS / f"access-{next(numbers)}.log"
    gateway = rig.gateway(audit_log=path, access_log=access)
    stop, sent = threading.Event(), []

    def work():
        with client(base_url=gateway.url) as http:
            while not stop.is_set():
                sent.append(gateway.exec(http=http, token="sgt_nonsense", command="true").headers["X-Exec-Id"])
    worker = threading.Thread(target=work)
    worker.start()
    moved = []
    for number in range(3):
        until(lambda: path.exists() and path.stat().st_size and access.stat().st_size, "something is logged")
        for file in (path, access):
            os.rename(file, f"{file}.{number}")
            moved.append(pathlib.Path(f"{file}.{number}"))
        gateway.signal(signal.SIGHUP)
        until(lambda: path.exists() and access.exists(), "they are opened anew")
    stop.set()
    worker.join()
    for files in ([path, *moved[::2]], [access, *moved[1::2]]):
        def logged(files=files):
            return sorted(exec_id for file in files for line in file.read_text(encoding="utf-8").splitlines()
                          if (exec_id := json.loads(line).get("exec_id")))
        until(lambda: logged() == sorted(sent), lambda: f"each is there once: {len(logged())} of {len(sent)}")


def test_what_cannot_be_written_is_counted_and_told(rig):
    gateway = rig.gateway(audit_log="/dev/full")
    gateway.run("true")
    until(lambda: gateway.metrics().get("spritegate_audit_dropped_total", sink="log") == 2, "both records are counted as lost")
    until(lambda: "audit: records are lost" in gateway.log, "it is said")
    assert gateway.log.count("audit: records are lost") == 1


def test_a_reader_that_stops_holds_nobody_up(rig, path):
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    gateway = rig.gateway(audit_log=path, audit_commands=1)
    body = json.dumps({"argv": ["true", *["x" * 100_000] * 3]}).encode()
    refused = rig.mint(cmd="nothing")["token"]
    for _ in range(90):     # three times of what may wait
        problem(gateway.exec(body=body, token=refused), 403, "command-denied")
    lost = until(lambda: gateway.metrics().get("spritegate_audit_dropped_total", sink="log"), "some are lost")
    assert gateway.health().status_code == 200 and gateway.run("echo 1").stdout == "1\n"
    got = bytearray()

    def told():
        try:
            got.extend(os.read(reader, 1 << 20))
        except BlockingIOError:
            return False
        if not got.endswith(b"\n"):
            return False
        gateway.exec(token="sgt_nonsense", command="true")
        return sum(line["lost"] for line in map(json.loads, got.splitlines()) if line["record"] == "lost") >= lost
    until(told, "when it reads again it is told what was lost", interval=0)
    assert sum(json.loads(line)["record"] == "decision" for line in got.splitlines()) >= 20


class Datasette(Part):
    def __init__(self, folder, port=None):
        self.folder, self.port = folder, port or free_port()
        super().__init__("datasette", [*DATASETTE, "serve", folder / "logs.db", "--create", "--root", "--secret", SECRET,
                                       "-h", "127.0.0.1", "-p", self.port])
        self.url = f"http://127.0.0.1:{self.port}"
        # No more than docs/AUDIT.md asks for.
        self.token = self.mint("-d", "logs", "insert-row", "-d", "logs", "create-table")
        self.http = client(base_url=self.url, headers={"Authorization": f"Bearer {self.mint()}"})
        self.until_up(self.answers)

    @staticmethod
    def mint(*restrictions):
        return subprocess.run([PYTHON, "-m", "datasette", "create-token", "root", "--secret", SECRET, *restrictions], capture_output=True,
                              text=True, timeout=60, check=True).stdout.strip()

    def answers(self):
        try:
            return self.http.get("/-/versions.json").status_code == 200
        except rigs.httpx.TransportError:
            return False

    def rows(self):
        answer = self.http.get("/logs/audit.json?_size=1000&_shape=array")
        return answer.json() if answer.status_code == 200 else []

    def columns(self):
        found = self.http.get("/logs/-/query.json", params={"sql": "select name, type, pk from pragma_table_info('audit')", "_shape": "arrays"})
        return [tuple(row) for row in found.json()["rows"]]


@pytest.fixture
def datasette(rig, tmp_path):
    part = Datasette(tmp_path)
    rig.add(part, part.kill)
    return part


def test_records_come_into_a_table_of_datasette(rig, datasette):
    gateway = rig.gateway(datasette_url=datasette.url, audit_table="logs/audit", audit_token=datasette.token, audit_commands=1)
    answers = [gateway.exec(command=f"exit {number}") for number in range(3)]
    again = [gateway.exec(command="true", headers={"Idempotency-Key": "a"}) for _ in range(2)]
    refused = gateway.exec(token="sgt_nonsense", command="true")
    assert again[0].json()["exec_id"] == again[1].json()["exec_id"]
    wanted = {f"{answer.json()['exec_id']}/run" for answer in (*answers, *again)} | {
        f"{answer.headers['X-Request-Id']}/decision" for answer in (*answers, *again, refused)}
    until(lambda: {row["id"] for row in datasette.rows()} == wanted, lambda: f"all are there: {gateway.log[-1500:]}")
    row = next(row for row in datasette.rows() if row["id"] == f"{answers[2].json()['exec_id']}/run")
    assert (row["outcome"], row["exit_code"], row["actor"], row["code"]) == ("exited", 2, "tester", None)
    assert [name for name, *_ in datasette.columns()] == MEMBERS
    assert {name: kind for name, kind, _ in datasette.columns()}["wall_ms"] == "INTEGER"
    assert [name for name, _, pk in datasette.columns() if pk] == ["id"]
    # A second gateway finds the table.
    other = rig.gateway(datasette_url=datasette.url, audit_table="logs/audit", audit_token=datasette.token)
    exec_id = other.exec(command="true").json()["exec_id"]
    until(lambda: f"{exec_id}/run" in {row["id"] for row in datasette.rows()}, "its records come as well")


def test_the_table_catches_up_when_datasette_was_away(rig, datasette):
    gateway = rig.gateway(datasette_url=datasette.url, audit_table="logs/audit", audit_token=datasette.token)
    first = gateway.exec(command="true")
    until(lambda: f"{first.json()['exec_id']}/run" in {row["id"] for row in datasette.rows()}, "the first is there")
    datasette.kill()
    answers = [first, *(gateway.exec(command="true") for _ in range(3))]
    until(lambda: "does not take records" in gateway.log, "it has noticed")
    again = Datasette(datasette.folder, datasette.port)
    rig.add(again, again.kill)
    wanted = {f"{answer.json()['exec_id']}/run" for answer in answers} | {f"{answer.headers['X-Request-Id']}/decision" for answer in answers}
    until(lambda: {row["id"] for row in again.rows()} == wanted, lambda: f"all are there, each once: {gateway.log[-1500:]}")
    assert gateway.metrics().get("spritegate_audit_dropped_total", sink="table") == 0


def test_what_waits_is_sent_before_the_exit(rig, datasette):
    gateway = rig.gateway(datasette_url=datasette.url, audit_table="logs/audit", audit_token=datasette.token)
    answer = gateway.exec(command="true")
    gateway.stop_at_once()
    assert {f"{answer.headers['X-Request-Id']}/decision", f"{answer.json()['exec_id']}/run"} == {row["id"] for row in datasette.rows()}


def test_a_token_that_may_not_write_is_told_and_stops_nothing(rig, datasette):
    gateway = rig.gateway(datasette_url=datasette.url, audit_table="logs/audit", audit_token="dstok_wrong")
    gateway.run("true")
    until(lambda: "the table does not take records" in gateway.log, "it is said")
    assert gateway.run("echo 1").stdout == "1\n" and "dstok_wrong" not in gateway.log


@pytest.mark.parametrize("settings, what", [({"audit_table": "logs"}, "DATABASE/TABLE"), ({"audit_table": "a/b/c"}, "DATABASE/TABLE"),
                                            ({"audit_table": "logs/audit"}, "audit_token"),
                                            ({"audit_log": "/nowhere/audit.log"}, "audit_log")])
def test_settings_that_cannot_work_are_refused(rig, settings, what):
    gateway = rig.gateway(wait=False, token=False, **settings)
    assert gateway.wait() != 0 and what in gateway.log


def test_a_pipe_that_nobody_reads_does_not_keep_it_from_ending(rig, path):
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    gateway = rig.gateway(audit_log=path, audit_commands=1)
    refused = rig.mint(cmd="nothing")["token"]
    problem(gateway.exec(argv=["true", *["x" * 100_000] * 3], token=refused), 403, "command-denied")
    gateway.stop_at_once()
    assert "nobody reads it" in gateway.log
    os.close(reader)
