"""HTTP/1.1 byte by byte: requests as a hostile client writes them, answers read strictly."""
import contextlib
import ctypes
import re
import select
import socket
import struct
import time

LIMIT = 60
SO_ATTACH_FILTER, BPF_RETURN = 26, 0x06


class Broken(AssertionError):
    """What came is not HTTP."""


class CutOff(Exception):
    """The peer closed or reset the connection where more was due."""


class Answer:
    def __init__(self, status, fields, body=b"", raw=b"", interim=()):
        self.status, self.fields, self.body, self.raw, self.interim = status, fields, body, raw, list(interim)

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def __getitem__(self, name):
        """The value of a field that may stand only once; None when it is absent."""
        values = self.all(name)
        assert len(values) < 2, f"{name} is there {len(values)} times: {values}"
        return values[0] if values else None

    # As httpx, for the checks in answers.py.

    @property
    def status_code(self):
        return self.status

    @property
    def headers(self):
        import httpx
        return httpx.Headers(self.fields)

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        import json
        return json.loads(self.body)


class Wire:
    """One TCP connection to a server."""

    def __init__(self, port, limit=LIMIT, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(limit)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- sending --------------------------------------------------------------

    def send(self, data):
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def ask(self, method, target, *fields, body=b"", host="gateway.test", version="HTTP/1.1", length=True):
        """Send a request; a body gets Content-Length unless `length` is false."""
        lines = [f"{method} {target} {version}"]
        if host is not None:
            lines.append(f"Host: {host}")
        lines += fields
        if body and length:
            lines.append(f"Content-Length: {len(body)}")
        return self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def chunk(self, data):
        return self.send(b"%x\r\n%s\r\n" % (len(data), data))

    # -- receiving ------------------------------------------------------------

    def receive(self, size=65536):
        """Some more bytes; b"" when the peer has closed. A reset raises CutOff."""
        try:
            return self.socket.recv(size)
        except ConnectionError:
            raise CutOff() from None

    def more(self):
        data = self.receive()
        if not data:
            raise CutOff()
        self.buffer += data

    def take_until(self, mark, limit=1 << 20):
        while mark not in self.buffer:
            assert len(self.buffer) < limit, f"no {mark!r} within {limit} bytes"
            self.more()
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def head(self):
        """Status and fields of the next answer, interim ones included; its body is still to be read."""
        raw = self.take_until(b"\r\n\r\n")
        lines = raw.split(b"\r\n")
        if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
            raise Broken(f"control characters in the head: {raw!r}")
        version, _, rest = lines[0].partition(b" ")
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or not re.fullmatch(rb"[1-5]\d\d( .*)?", rest):
            raise Broken(f"no status line: {lines[0]!r}")
        fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise Broken(f"no field line: {line!r}")
            fields.append((name.decode("latin-1"), value.strip().decode("latin-1")))
        return Answer(int(rest[:3]), fields, raw=raw)

    def answer(self, to="GET"):
        """The next final answer with its whole body. CutOff when it is not whole."""
        interim = []
        while True:
            answer = self.head()
            if answer.status >= 200:
                break
            interim.append(answer)
        answer.interim = interim
        answer.body = b"".join(self.body(answer, to))
        return answer

    def body(self, answer, to="GET"):
        """The pieces of the body, as they come."""
        length, coding = answer["Content-Length"], answer["Transfer-Encoding"]
        if length is not None and coding is not None:
            raise Broken("both Content-Length and Transfer-Encoding")
        if to == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return
        if coding is not None:
            assert coding.lower() == "chunked", f"Transfer-Encoding: {coding}"
            yield from self.chunks()
        elif length is not None:
            assert length.isdigit(), f"Content-Length: {length}"
            left = int(length)
            while left:
                if not self.buffer:
                    self.more()
                piece, self.buffer = self.buffer[:left], self.buffer[left:]
                left -= len(piece)
                yield piece
        else:
            while True:
                if self.buffer:
                    piece, self.buffer = self.buffer, b""
                    yield piece
                piece = self.receive()
                if not piece:
                    return
                yield piece

    def chunks(self):
        while True:
            size = self.take_until(b"\r\n")
            if not size or size.strip(b"0123456789abcdefABCDEF"):
                raise Broken(f"no chunk size: {size!r}")
            data = self.take(int(size, 16))
            if not data:
                while self.take_until(b"\r\n"):
                    pass    # trailers
                return
            yield data
            if self.take(2) != b"\r\n":
                raise Broken("no line end after a chunk")

    def body_until_cut(self, answer):
        """The body of an answer that is cut: its bytes. An answer that ends well is an error."""
        data = bytearray()
        try:
            for piece in self.body(answer):
                data += piece
        except CutOff:
            return bytes(data) + self.buffer
        raise AssertionError(f"the answer ended as if it were whole, after {len(data)} bytes")

    def closed(self, seconds=5):
        """Whether the peer closes within this time without sending anything more."""
        self.socket.settimeout(seconds)
        try:
            return not self.buffer and self.receive(1) == b""
        except (socket.timeout, TimeoutError):
            return False
        except CutOff:
            return True
        finally:
            with contextlib.suppress(OSError):
                self.socket.settimeout(LIMIT)

    def silent(self, seconds):
        """Nothing comes for this time and the connection stays open."""
        return not self.buffer and not select.select([self.socket], [], [], seconds)[0]

    def everything(self, seconds=10):
        """All bytes until the peer closes, or until this time has passed."""
        data, end = self.buffer, time.monotonic() + seconds
        self.buffer = b""
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                piece = self.receive()
            except (TimeoutError, CutOff):
                break
            if not piece:
                break
            data += piece
        return data

    # -- leaving --------------------------------------------------------------

    def vanish(self):
        """Without a word: from now on nothing arrives here, so nothing is acknowledged."""
        drop = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(drop)))

    def close(self):
        self.socket.close()

    def reset(self):
        """Leave with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def exchange(port, raw, seconds=10):
    """What a server answers to these bytes on a connection of its own: the statuses in order, and whether it closed."""
    with Wire(port) as wire:
        wire.send(raw)
        answers = []
        wire.socket.settimeout(seconds)
        try:
            while True:
                answers.append(wire.answer())
                if (answers[-1]["Connection"] or "").lower() == "close":
                    return answers, wire.closed()
                if not wire.buffer and wire.silent(0.3):
                    return answers, False
        except CutOff:
            return answers, True
        except TimeoutError:
            return answers, False


def exec_request(token, body, *fields):
    """The bytes of POST /-/agent/exec."""
    lines = ["POST /-/agent/exec HTTP/1.1", "Host: gateway.test", f"Authorization: Bearer {token}",
             "Content-Type: application/json", f"Content-Length: {len(body)}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
