"""Requests of every kind that the gateway has, to two gateways on one pool; what went wrong is kept, not raised."""
import collections
import itertools
import json
import threading
import time

from mcp import PATH as MCP
from storm import Client
from streamed import NDJSON, objects_of
from test_websocket import ASKED, BLOCK, KEY, accept_of
from wire import exec_request

OF_DATASETTE = {"page", "csv", "upload", "rows"}
AFTERWARDS_S = 6        # what an outage may still do after it: connections that were kept are found broken
ROWS = 10
NAMES = ["first", "second", "third"]        # of sessions
WHOLE = ("counted", "verified")
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


class Caller(Client):
    """`gateways`: the first is before Datasette, the second before a server that echoes WebSockets."""

    kinds = {**Client.kinds, "stream": 10, "session": 10, "rows": 8, "mcp": 8, "websocket": 6}

    def __init__(self, gateways, token, numbers, seed, outages, written):
        super().__init__(gateways[0], token, numbers, seed, troubled=True)
        self.gateways, self.outages, self.written = gateways, outages, written
        self.wrong, self.asked = [], None
        self.exited = collections.Counter()     # commands that were seen to end by themselves, by kind

    def port(self, kind):
        if kind in OF_DATASETTE:
            return self.gateways[0].port
        return (self.gateways[1] if kind == "websocket" else self.random.choice(self.gateways)).port

    def excused(self, kind):
        return kind in OF_DATASETTE and self.outages.touch(self.began)

    def cut(self, kind, leaves):
        super().cut()
        # What is refused before it was read may be reset, and of what is no request nobody can tell more.
        if not leaves and kind not in ("upload", "rubbish") and not self.excused(kind):
            self.failures.append(f"{kind}: cut")

    def allowed(self, kind):
        more = {502, 504} if self.excused(kind) else {409, 410, 429} if kind == "session" else set()
        return super().allowed(kind) | more

    def finish(self, wire, kind):
        if kind == "websocket":
            self.echoed(wire)
        else:
            super().finish(wire, kind)

    def judge(self, kind, answer):
        try:
            judge = getattr(self, "judge_" + kind, None)
            if judge and answer.status == 200:
                judge(answer)
            else:
                super().judge("exec" if judge and answer.status == 502 else kind, answer)
        except (AssertionError, KeyError, TypeError, ValueError) as failure:
            self.wrong.append(f"{kind}: {failure!r}: {answer.text[:500]}")

    def ended(self, kind, told, stdout):
        """A command that exits with 0 when it is let, and prints that."""
        assert told["outcome"] in ("exited", "timed_out"), told
        if told["outcome"] == "exited":
            self.exited[kind] += 1
            assert told["exit_code"] == 0, told
            assert stdout is None or told["output_check"] not in WHOLE or stdout(told), told

    # -- the requests -----------------------------------------------------------

    def stream(self):
        return exec_request(self.token, b'{"command": "echo a; sleep 0.2; echo b"}', f"Accept: {NDJSON}", "Connection: close")

    def judge_stream(self, answer):
        *objects, result = objects_of(NDJSON, [answer.body])
        assert result["type"] == "result" and objects[0]["type"] == "accepted", "no result at its end"
        printed = "".join(one["data"] for one in objects if one["type"] == "stdout")
        if result["ok"]:
            self.ended("stream", result, lambda _: printed == "a\nb\n")
        else:
            assert result["outcome"] in ("unknown", "not_started"), result

    def session(self):
        self.asked = self.random.choice(NAMES)
        return self.command(command=f"cat mark 2>/dev/null; echo {self.asked} >mark", session=self.asked)

    def judge_session(self, answer):
        self.ended("session", answer.json(), lambda told: told["stdout"] in ("", self.asked + "\n"))

    def rows(self):
        self.asked = self.written.next()
        return self.command(command=f"seq {self.asked[0]} {self.asked[-1]} | sed 's/.*/{{\"id\": &}}/'",
                            stdout_to={"datasette": "/sample/-/create", "table": "soaked", "pk": "id"})

    def judge_rows(self, answer):
        told = answer.json()
        self.ended("rows", told, None)
        wrote = told["stdout_to"]
        if told["outcome"] == "exited" and told["output_check"] in WHOLE and wrote["error"] is None:
            assert wrote["rows_written"] == ROWS, told
            self.written.add(self.asked)

    def mcp(self):
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
                           "params": {"name": "run_command", "arguments": {"command": "echo 42"}}}).encode()
        request = exec_request(self.token, body, "Connection: close").replace(b"/-/agent/exec", MCP.encode())
        return request.replace(b"Host: gateway.test", b"Host: localhost")

    def judge_mcp(self, answer):
        told = answer.json()
        assert told["id"] == 7, told
        found = told["result"]["structuredContent"]
        if found["ok"]:
            self.ended("mcp", found, lambda one: one["stdout"] == "42\n")
        else:
            assert found["status"] == 503 or found["outcome"] in ("unknown", "not_started"), found

    def websocket(self):
        return ("\r\n".join(["GET /echo HTTP/1.1", "Host: a", *ASKED]) + "\r\n\r\n").encode()

    def echoed(self, wire):
        answer = wire.head()
        self.count(answer.status)
        if answer.status != 101 or answer["Sec-WebSocket-Accept"] != accept_of(KEY):
            self.failures.append(f"websocket: {answer.status}")
            return
        for at in range(0, len(FRAMES), 10_000):
            piece = FRAMES[at:at + 10_000]
            wire.send(piece)
            if wire.take(len(piece)) != piece:
                self.wrong.append("websocket: other bytes came back")
