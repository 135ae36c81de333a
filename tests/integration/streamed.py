"""A streamed answer, read as strictly as a client may: every line an object of a known type, in an allowed order, and one result at the end."""
import base64
import json
import time

from answers import MEMBERS, check_files, check_limits, is_uuid7
from wire import Wire, exec_request

NDJSON, SSE = "application/x-ndjson", "text/event-stream"
RESULT = MEMBERS - {"stdout", "stderr"} | {"type"}
OF_A_PROBLEM = {"status", "code", "detail", "may_have_run"}
PIECE_MAX = 32 * 1024


def objects_of(kind, pieces):
    """The objects of a stream as they come; `pieces` are parts of its body, cut anywhere."""
    end = b"\n" if kind == NDJSON else b"\n\n"
    rest = b""
    for piece in pieces:
        rest += piece
        while end in rest:
            line, _, rest = rest.partition(end)
            yield parse(kind, line)
    assert not rest, f"the stream ends in the middle of a line: {rest[-200:]!r}"


def parse(kind, line):
    event = None
    if kind == SSE:
        head, _, line = line.partition(b"\n")
        assert head.startswith(b"event: ") and line.startswith(b"data: "), (head, line[:100])
        event, line = head.removeprefix(b"event: ").decode(), line.removeprefix(b"data: ")
    assert b"\n" not in line and b"\r" not in line, f"a raw line end in {line[:200]!r}"
    found = json.loads(line.decode("utf-8"))
    assert event in (None, found["type"]), f"the event {event} holds {found}"
    return found


class Streamed:
    """One command whose answer is streamed. Iterating gives its objects, checked; afterwards .result, .stdout, .stderr."""

    def __init__(self, gateway, kind=NDJSON, token=None, receive_buffer=None, **fields):
        self.kind = kind
        self.wire = Wire(gateway.port, receive_buffer=receive_buffer)
        self.wire.send(exec_request(token or gateway.token, json.dumps(fields).encode(), f"Accept: {kind}"))
        self.answer = None
        self.objects, self.result, self.exec_id = [], None, None
        self.output = {"stdout": b"", "stderr": b""}
        self.files = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.close()

    def head(self):
        self.answer = self.wire.head()
        assert self.answer.status == 200, (self.answer.status, self.wire.everything(1))
        headers = self.answer.headers
        assert headers["Content-Type"] == self.kind, headers
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff", headers
        assert is_uuid7(headers["X-Exec-Id"]) and is_uuid7(headers["X-Request-Id"]), headers
        check_limits(headers)
        return self.answer

    def __iter__(self):
        if not self.answer:
            self.head()
        for found in objects_of(self.kind, self.wire.body(self.answer)):
            found["at"] = time.monotonic()
            self.take(found)
            yield found
        assert self.result, f"no result at the end of {self.objects[-3:]}"

    def take(self, found):
        assert self.result is None, f"{found} after the result"
        members = set(found) - {"at"}
        if found["type"] == "accepted":
            assert not self.objects and members == {"type", "exec_id"}, found
            self.exec_id = found["exec_id"]
            assert self.exec_id == self.answer["X-Exec-Id"], found
        else:
            assert self.objects, f"{found['type']} before accepted"
        if found["type"] in self.output:
            assert members == {"type", "data", "encoding"}, found
            data = base64.b64decode(found["data"], validate=True) if found["encoding"] == "base64" else found["data"].encode()
            assert found["encoding"] in ("utf-8", "base64") and 0 < len(data) <= PIECE_MAX, (found["encoding"], len(data))
            assert not self.files, f"{found} after a file"
            self.output[found["type"]] += data
        elif found["type"] == "file":
            assert members == {"type", "path", "data", "encoding"}, found
            data = base64.b64decode(found["data"], validate=True) if found["encoding"] == "base64" else found["data"].encode()
            assert 0 < len(data) <= PIECE_MAX, len(data)
            assert list(self.files)[-1:] == [found["path"]] or found["path"] not in self.files, f"{found['path']} is not in one go"
            self.files[found["path"]] = self.files.get(found["path"], b"") + data
        elif found["type"] == "result":
            self.check_result(found)
        else:
            assert found["type"] in ("accepted", "ping"), found
        self.objects.append(found)

    def check_result(self, found):
        self.result = found
        extra = set(found) - {"at"} - RESULT - {"stdout_to"}
        assert RESULT <= set(found), RESULT - set(found)
        assert found["exec_id"] == self.exec_id, found
        if found["ok"]:
            assert not extra, extra
        else:
            source = {"pointer", "source_status"} if found["code"] == "source-failed" else set()
            assert OF_A_PROBLEM <= extra <= OF_A_PROBLEM | {"retry_after", "violated-policies"} | source, extra
            ran = "canceled" if source else "unknown"
            assert found["outcome"] == (ran if found["may_have_run"] else "not_started"), found
        assert (type(found["exit_code"]) is int) == (found["outcome"] == "exited"), found
        check_files(found["files"], contents=False)
        for path, file in found["files"].items():
            assert "error" in file or len(self.files.get(path, b"")) == file["bytes"], (path, file)
        for stream, data in self.output.items():
            told = len(data)
            assert told <= found[f"{stream}_bytes"], f"{stream}: {told} bytes came of {found[f'{stream}_bytes']}"
            written = stream == "stdout" and "stdout_to" in found
            assert written or found[f"{stream}_truncated"] or told == found[f"{stream}_bytes"], f"{stream}: {told} bytes came, uncut, of {found}"

    def all(self):
        """To the end; returns itself."""
        for _ in self:
            pass
        return self

    @property
    def stdout(self):
        return self.output["stdout"]

    @property
    def stderr(self):
        return self.output["stderr"]

    def __getattr__(self, name):
        if name != "result" and self.result and name in self.result:
            return self.result[name]
        raise AttributeError(name)
