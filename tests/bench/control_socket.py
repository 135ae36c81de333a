"""A Sprite of the emulator and one control socket to it: no more than what a bare command needs, so that it costs little."""
import http.client
import json
import socket

import servers
from processes import NotMeasured

TEXT, BINARY, CLOSE = 1, 2, 8
STDIN, EXIT, EOF = b"\x00", 3, b"\x04"
SHIM = "/tmp/.spritegate/shim"      # as in gateway/sprites/record.h
REPORT_BYTES = 81                   # RECORD_REPORT_LEN there
RECORD = b"0123456789abcdef0123456789abcdef\n"
MASK = bytes(4)   # costs nothing; the emulator is no proxy that could be fooled


class ControlSocket:
    def __init__(self, port, token, name):
        self.where = port, token, name
        rest(port, token, "POST", "/v1/sprites", {"name": name})
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall((f"GET /v1/sprites/{name}/control HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
                             "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: c3ByaXRlZ2F0ZS1iZW5jaA==\r\n\r\n").encode())
        self.input = self.socket.makefile("rb")
        answer = self.input.readline()
        while self.input.readline().strip():
            pass
        if b" 101 " not in answer:
            raise NotMeasured(f"sprites: no control socket: {answer}")

    def run(self, argv, given=b"\n", heard=lambda piece: None):
        """Start the command, give it this and the end of input; back at the exit frame with its code and output, of which each piece is heard."""
        start = {"type": "op.start", "id": "1", "op": "exec", "args": {"cmd": argv, "path": argv[0], "stdin": "true"}}
        self.socket.sendall(message(TEXT, b"control:" + json.dumps(start).encode()) + message(BINARY, STDIN + given) +
                            message(BINARY, EOF))
        output = b""
        while True:
            kind, data = self.receive()
            if kind == BINARY and data[0] == EXIT:
                return data[1], output
            if kind == BINARY:
                heard(data[1:])
                output += data[1:]
            elif b'"op.error"' in data:
                raise NotMeasured(f"sprites: {data}")

    def settle(self):
        """After run(): until the socket is ready for the next command."""
        while b'"op.complete"' not in self.receive()[1]:
            pass

    def receive(self):
        """One message; the server sends short ones in one frame and no pings."""
        head = self.input.read(2)
        if len(head) < 2 or head[0] & 15 == CLOSE:
            raise NotMeasured("sprites: the control socket was closed")
        size = head[1]
        if size >= 126:
            size = int.from_bytes(self.input.read(2 if size == 126 else 8))
        return head[0] & 15, self.input.read(size)

    def bring_shim(self):
        """As the preparation of a Sprite does."""
        image = (servers.BUILD / "shim/shim").read_bytes()
        folder = SHIM.rpartition("/")[0]
        code, output = self.run(["bash", "-lc", f"mkdir -p {folder} && cat >{SHIM} && chmod 700 {SHIM} && {SHIM} >/dev/null"], image)
        self.settle()
        if code:
            raise NotMeasured(f"the shim could not be brought into the Sprite: {output}")

    def close(self):
        self.input.close()
        self.socket.close()

    def destroy(self):
        port, token, name = self.where
        rest(port, token, "DELETE", f"/v1/sprites/{name}", {})


def launch(command):
    """The program and arguments that the gateway starts for a shell line; an empty line of input starts it, RECORD with its record."""
    return [SHIM, "/home/sprite", "1", "SPRITEGATE_EXEC_ID=bench", "bash", "-lc", command]


def message(kind, data):
    size = bytes([128 + len(data)]) if len(data) < 126 else bytes([128 + 126]) + len(data).to_bytes(2)   # below 64 KiB
    return bytes([128 + kind]) + size + MASK + data


def rest(port, token, method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, json.dumps(body), {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status >= 300:
        raise NotMeasured(f"sprites: {method} {path}: {response.status} {response.read()[:200]}")
    connection.close()
