"""Requests of every kind that the gateway has, to two gateways on one pool; what went wrong is kept, not raised."""
import collections
import itertools
import json
import threading
import time

import answers
import commands
from commands import Wanted
from mcp import PATH as MCP
from storm import Client
from streamed import NDJSON, objects_of
from test_websocket import ASKED, BLOCK, KEY, accept_of
from wire import Wire, exec_request

OF_DATASETTE = {"page", "csv", "upload", "rows"}
COMMANDS = {"exec", "output", "sleep", "stream", "session", "rows", "mcp"}
KEPT = COMMANDS | {"page", "csv", "upload"}     # may be sent on a connection that is kept
OF_SESSIONS = {409: "session-busy", 410: "session-lost", 429: "session-limit"}
AFTERWARDS_S = 6        # what an outage may still do after it: connections that were kept are found broken
LIMIT_S, PATIENCE_S = 200, 100
ROWS = 10
NAMES = ["first", "second", "third"]        # of sessions
FRAMES = BLOCK[:100_000]


class Outages:
    """When Datasette was away. Whoever asked for something of it meanwhile may have got nothing."""

    def __init__(self):
        self.spans, self.lock = [], threading.Lock()

    def __enter__(self):
        with self.lock:
            self.spans.append((time.monotonic(), None))

    def __exit__(self, *_):
        with self.lock:
            self.spans[-1] = self.spans[-1][0], time.monotonic() + AFTERWARDS_S

    def touch(self, since):
        with self.lock:
            return any(end is None or end >= since for _, end in self.spans)


class Written:
    """Rows that were said to be written."""

    def __init__(self):
        self.numbers, self.lock, self.ids = itertools.count(), threading.Lock(), set()

    def next(self):
        first = next(self.numbers) * ROWS
        return range(first, first + ROWS)

    def add(self, ids):
        with self.lock:
            self.ids.update(ids)


class Session:
    """While all is calm one caller at a time uses it, so the next count is known."""

    def __init__(self, name):
        self.name, self.lock, self.count = name, threading.Lock(), 0


class Caller(Client):
    """To `world.gateways`: the first is before Datasette, the second before a server that echoes WebSockets. `calm`: nothing fails, so
    everything has to work."""

    kinds = {**Client.kinds, "stream": 10, "session": 10, "rows": 8, "mcp": 8, "websocket": 6}

    def __init__(self, world, numbers, seed, calm):
        super().__init__(world.gateways[0], world.token, numbers, seed, troubled=not calm)
        self.world, self.calm = world, calm
        self.wanted, self.rows_asked, self.word = None, None, None
        self.session_asked, self.session_used = None, None      # the latter while its lock is held
        self.keeps, self.kept = False, {}       # whether this request's connection is; by port
        self.wrong, self.refused_calmly = [], []
        self.seen = []      # (outcome, exec id) of answers
        self.exited, self.compared, self.codes, self.reused = (collections.Counter() for _ in range(4))
        self.outcomes = collections.Counter()      # of commands that would have exited by themselves

    def run(self):
        super().run()
        for wire in self.kept.values():
            wire.close()

    def one(self):
        self.keeps = self.random.random() < 0.5
        try:
            super().one()
        finally:
            if self.session_used:
                self.session_used.lock.release()
                self.session_used = None

    # -- connections ------------------------------------------------------------

    def fields(self):
        return [] if self.keeps else ["Connection: close"]

    def may_leave(self, kind):
        return not (self.calm and kind == "session")    # what runs on in it would be in the next one's way

    def port(self, kind):
        if kind in OF_DATASETTE:
            return self.world.gateways[0].port
        return (self.world.gateways[1] if kind == "websocket" else self.random.choice(self.world.gateways)).port

    def connect(self, kind):
        port = self.port(kind)
        wire = self.kept.pop(port, None) if self.keeps and kind in KEPT else None
        if wire:
            self.reused["on kept connections"] += 1
        else:
            wire = Wire(port, limit=LIMIT_S, receive_buffer=self.random.choice([None, 4096]))
            wire.port = port
        return wire

    def end(self, wire):
        if wire not in self.kept.values():
            wire.close()

    def cut(self, kind, leaves):
        super().cut()
        # What is refused before it was read may be reset, and of what is no request nobody can tell more.
        if not leaves and kind not in ("upload", "rubbish") and not self.excused(kind):
            self.failures.append(f"{kind}: cut")

    def finish(self, wire, kind):
        if kind == "websocket":
            self.echoed(wire)
            return
        answer = wire.answer()
        self.count(answer.status)
        self.judge(kind, answer)
        if self.keeps and kind in KEPT and (answer["Connection"] or "").lower() != "close":
            assert not wire.buffer, f"{kind}: more than the answer came: {wire.buffer[:200]!r}"
            self.kept[wire.port] = wire

    # -- answers ----------------------------------------------------------------

    def excused(self, kind):
        return kind in OF_DATASETTE and self.world.outages.touch(self.began)

    def judge(self, kind, answer):
        try:
            if kind in COMMANDS:
                self.judge_command(kind, answer)
            elif answer.status not in self.allowed(kind) | ({502, 504} if self.excused(kind) else set()):
                self.unexpected(kind, answer)
            elif answer.status == 200 and self.path in self.world.pages:
                assert answer.body == self.world.pages[self.path], f"{self.path} is not what Datasette answers"
        except (AssertionError, KeyError, TypeError, ValueError) as failure:
            self.wrong.append(f"{kind}: {failure!r:.600}: {answer.status} {answer.text[:500]}")

    def unexpected(self, kind, answer):
        where = self.refused_calmly if self.calm else self.failures
        where.append(f"{kind}: {answer.status} {answer.text[:300]}")

    def judge_command(self, kind, answer):
        if answer.status == 200:
            getattr(self, "judge_" + kind, self.judge_ran)(kind, answer)
            return
        if self.calm:
            self.unexpected(kind, answer)
            return
        if answer.status == 502:
            self.without_end(kind, answers.unknown(answer))
        elif answer.status == 503:
            code = answer.json()["code"]
            self.without_end(kind, answers.problem(answer, 503, code) if code == "policy-unavailable" else answers.not_started(answer))
        elif kind == "session" and answer.status in OF_SESSIONS:
            self.without_end(kind, answers.problem(answer, answer.status, OF_SESSIONS[answer.status]))
        else:
            self.unexpected(kind, answer)

    def without_end(self, kind, told):
        """A problem, or the result of a stream that is one."""
        assert self.troubled, f"a command without an end: {told}"
        code = told.get("code")
        self.codes[code] += 1
        if "outcome" in told:
            self.note(told["outcome"], told.get("exec_id"))
        if kind not in ("session", "stream") and told.get("outcome") == "unknown":
            assert self.wanted.begins(commands.bytes_of(told)), f"stdout is none of this command: {told['stdout'][:100]!r}"

    def note(self, outcome, exec_id):
        self.seen.append((outcome, exec_id))
        if self.wanted is None or self.wanted.exits:
            self.outcomes[outcome] += 1

    def ended(self, kind, told, stdout, stderr):
        self.note(told["outcome"], told["exec_id"])
        self.compared[kind] += commands.compare(self.wanted, told, stdout, stderr, self.troubled)
        self.exited[kind] += told["outcome"] == "exited"

    def judge_ran(self, kind, answer):
        told = answers.Ran(answer).json
        self.ended(kind, told, commands.bytes_of(told), commands.bytes_of(told, "stderr"))

    # -- the requests, and what each is answered when it is let -------------------

    def ask(self, fields, wanted):
        self.wanted = wanted
        return self.command(**self.patient(fields))

    def patient(self, fields):
        """A loaded machine is no fault, so while all is calm a command has long; otherwise what hangs is not waited for."""
        return {"timeout_seconds": PATIENCE_S, **fields} if self.calm else fields

    def exec(self):
        return self.ask(*commands.echo(self.random))

    def output(self):
        return self.ask(*commands.lines(self.random))

    def sleep(self):
        return self.ask(*commands.sleeps(self.random))

    def stream(self):
        word = self.random.getrandbits(64)
        body = self.ask({"command": f"echo {word}; sleep 0.2; echo b"}, Wanted(b"%d\nb\n" % word))
        return body.replace(b"\r\n", b"\r\nAccept: %s\r\n" % NDJSON.encode(), 1)

    def judge_stream(self, kind, answer):
        *objects, result = objects_of(NDJSON, [answer.body])
        assert result["type"] == "result" and objects[0]["type"] == "accepted", "no result at its end"
        if result["ok"]:
            self.ended(kind, result, commands.printed(objects, "stdout"), commands.printed(objects, "stderr"))
        else:
            assert result["outcome"] in ("unknown", "not_started"), result
            assert self.wanted.begins(commands.printed(objects, "stdout")), "stdout is none of this command"
            self.without_end(kind, result)

    def session(self):
        session = self.world.sessions[self.random.choice(NAMES)]
        if self.calm:
            session.lock.acquire()
        self.session_used = session if self.calm else None
        self.session_asked, self.word = session, self.random.getrandbits(64)
        return self.ask({"command": f"n=$(($(cat count 2>/dev/null) + 1)); echo $n >count; echo {session.name} {self.word} $n",
                         "session": session.name}, None)

    def judge_session(self, kind, answer):
        told, session = answers.Ran(answer).json, self.session_asked
        stdout = commands.bytes_of(told)
        if self.calm:
            count, created = session.count + 1, told["sandbox"]["session"]["created"]
            session.count = count
            assert created == (count == 1), f"created: {created}, command {count} of its session"
        else:
            last = stdout.split()[-1:]
            count = int(last[0]) if last and last[0].isdigit() else 0
        self.wanted = Wanted(f"{session.name} {self.word} {count}\n".encode())
        self.ended(kind, told, stdout, commands.bytes_of(told, "stderr"))

    def rows(self):
        self.rows_asked = self.world.written.next()
        return self.ask({"command": f"seq {self.rows_asked[0]} {self.rows_asked[-1]} | sed 's/.*/{{\"id\": &}}/'",
                         "stdout_to": {"datasette": "/sample/-/create", "table": "soaked", "pk": "id"}}, Wanted(b""))

    def judge_rows(self, kind, answer):
        told = answers.Ran(answer).json
        self.note(told["outcome"], told["exec_id"])
        assert told["outcome"] in self.wanted.outcomes(self.troubled), told
        wrote, whole = told["stdout_to"], told["outcome"] == "exited" and told["output_check"] in commands.WHOLE
        self.exited[kind] += told["outcome"] == "exited"
        assert self.troubled or (whole and wrote["error"] is None), told
        if whole and wrote["error"] is None:
            assert told["exit_code"] == 0 and wrote["rows_written"] == ROWS, told
            self.world.written.add(self.rows_asked)
            self.compared[kind] += 1

    def mcp(self):
        word = self.random.getrandbits(64)
        self.wanted = Wanted(b"%d\n" % word)
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
                           "params": {"name": "run_command", "arguments": self.patient({"command": f"echo {word}"})}}).encode()
        request = exec_request(self.token, body, *self.fields()).replace(b"/-/agent/exec", MCP.encode(), 1)
        return request.replace(b"Host: gateway.test", b"Host: localhost", 1)

    def judge_mcp(self, kind, answer):
        told = answer.json()
        assert told["id"] == 7, told
        found = told["result"]["structuredContent"]
        if found["ok"]:
            self.ended(kind, found, commands.bytes_of(found), commands.bytes_of(found, "stderr"))
        else:
            assert found["status"] == 503 or found["outcome"] in ("unknown", "not_started"), found
            self.without_end(kind, found)

    def websocket(self):
        return ("\r\n".join(["GET /echo HTTP/1.1", "Host: a", *ASKED]) + "\r\n\r\n").encode()

    def echoed(self, wire):
        answer = wire.head()
        self.count(answer.status)
        if answer.status != 101 or answer["Sec-WebSocket-Accept"] != accept_of(KEY):
            self.unexpected("websocket", answer)
            return
        for at in range(0, len(FRAMES), 10_000):
            piece = FRAMES[at:at + 10_000]
            wire.send(piece)
            if wire.take(len(piece)) != piece:
                self.wrong.append("websocket: other bytes came back")
