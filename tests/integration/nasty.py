"""An upstream that does what a test says: slow, endless, cut, malformed answers, and a record of what came."""
import contextlib
import select
import socket
import socketserver
import struct
import threading
import time

from wire import CutOff, Wire

PIECE = bytes(range(256)) * 256     # 64 KiB


class Closed(Exception):
    """The other side left."""


class Exchange:
    """One request as it came, and the connection to answer it on."""

    def __init__(self, connection, upstream):
        self.wire = connection
        self.upstream = upstream
        raw = connection.take_until(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        self.raw = raw
        self.method, self.target, self.version = lines[0].split(" ")
        self.fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        self.body_read = False
        self.at = time.monotonic()

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def __getitem__(self, name):
        values = self.all(name)
        assert len(values) < 2, f"the upstream got {name} {len(values)} times: {values}"
        return values[0] if values else None

    def body(self):
        """The pieces of the request's body."""
        self.body_read = True
        if self["Transfer-Encoding"] is not None:
            assert self["Transfer-Encoding"] == "chunked" and self["Content-Length"] is None, self.fields
            yield from self.wire.chunks()
            return
        left = int(self["Content-Length"] or 0)
        while left:
            if not self.wire.buffer:
                self.wire.more()
            piece, self.wire.buffer = self.wire.buffer[:left], self.wire.buffer[left:]
            left -= len(piece)
            yield piece

    def read(self):
        return b"".join(self.body())

    def send(self, data):
        try:
            self.wire.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        except OSError:
            raise Closed from None

    def reply(self, status="200 OK", *fields, body=b"", length=True):
        """A plain answer."""
        lines = [f"HTTP/1.1 {status}", *fields]
        if length:
            lines.append(f"Content-Length: {len(body)}")
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def hang_up(self):
        raise Closed

    def reset(self):
        self.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Closed

    def left_within(self, seconds):
        """Seconds until the other side closed, or None if it stays."""
        began = time.monotonic()
        poll = select.poll()
        poll.register(self.wire.socket.fileno(), select.POLLRDHUP)
        return time.monotonic() - began if poll.poll(seconds * 1000) else None


class Upstream:
    """Answers every request with `routes[path](exchange)`, or `routes[None]`; what has no route is answered 404. `tls`: an ssl.SSLContext."""

    def __init__(self, port=0, tls=None):
        self.tls = tls
        self.routes = {}
        self.requests = []          # exchanges, oldest first
        self.connections = 0
        self.open = set()
        self.failures = []          # assertions that failed in a route
        self.closed = False
        self.lock = threading.Lock()
        upstream = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                upstream.serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 512
            block_on_close = False

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def serve(self, connection):
        if self.tls:
            connection.settimeout(60)
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:
                return      # it does not trust us
        with self.lock:
            self.connections += 1
            self.open.add(connection)
        wire = Wire.__new__(Wire)
        wire.socket, wire.buffer = connection, b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(60)
        with contextlib.suppress(Closed, CutOff, OSError):
            while not self.closed:
                exchange = Exchange(wire, self)
                with self.lock:
                    self.requests.append(exchange)
                self.route(exchange)
                if not exchange.body_read:
                    exchange.read()
        with self.lock:
            self.open.discard(connection)
        if self.tls:
            connection.close()      # the server knows only what is below it

    def route(self, exchange):
        path = exchange.target.partition("?")[0]
        handler = self.routes.get(path) or self.routes.get(None)
        try:
            if handler:
                handler(exchange)
            else:
                exchange.reply("404 Not Found")
        except AssertionError as failure:
            self.failures.append(failure)
            raise Closed from None

    def on(self, path):
        """Decorator: the function answers requests for this path."""
        def add(function):
            self.routes[path] = function
            return function
        return add

    def asked(self, path=None):
        """Requests so far, for one path or all."""
        with self.lock:
            return [one for one in self.requests if path is None or one.target.partition("?")[0] == path]

    def close(self):
        self.closed = True
        self.server.shutdown()
        self.server.server_close()
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        assert not self.failures, f"in a route of the upstream: {self.failures}"
