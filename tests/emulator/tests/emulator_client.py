"""Starts the emulator as a program and speaks to it over real sockets."""
import asyncio
import contextlib
import json
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time

import aiohttp

FOLDER = pathlib.Path(__file__).resolve().parent.parent
TOKEN = "org/1/secret"
QUICK = ("--create-delay", "20ms", "--wake-delay", "30ms", "--cold-wake-delay", "60ms", "--idle-pause", "30s",
         "--checkpoint-delay", "20ms", "--restore-delay", "20ms", "--offline")
PATIENCE = 60


class Emulator:
    """One emulator process; use as a context manager."""

    def __init__(self, *flags, quick=True):
        self.flags = (*(QUICK if quick else ()), *flags)

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, FOLDER, "--listen", "127.0.0.1:0", "--token", TOKEN, *self.flags],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        if not found:
            self.process.kill()
            raise AssertionError(f"unexpected first line: {line!r}")
        self.url = found[1]
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert code in (0, -signal.SIGKILL)

    @contextlib.asynccontextmanager
    async def client(self, token=TOKEN):
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with aiohttp.ClientSession(self.url, headers=headers) as session:
            yield Client(session)


class Client:
    names = 0

    def __init__(self, session):
        self.session = session

    async def call(self, method, path, **more):
        async with self.session.request(method, path, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def create(self, name=None, **fields):
        if name is None:
            Client.names += 1
            name = f"s{Client.names}"
        answer = await self.call("POST", "/v1/sprites", json={"name": name, **fields})
        assert answer.status == 201, answer.text
        return name

    async def state(self):
        return (await self.call("GET", "/_emulator/state")).json

    async def status(self, name):
        return next((s["status"] for s in (await self.state())["sprites"] if s["name"] == name), None)

    async def until_status(self, name, wanted):
        await until(lambda: self.is_status(name, wanted))

    async def is_status(self, name, wanted):
        return await self.status(name) == wanted

    async def pause(self, name):
        assert (await self.call("POST", "/_emulator/pause", json={"sprite": name})).json["status"] == "warm"

    async def leave_sleeping(self, name):
        """A `sleep` that outlives its shell, seen to run."""
        await self.shell(name, "nohup sleep 60 >/dev/null 2>&1 & until pgrep -x sleep >/dev/null; do :; done")

    async def until_none(self, name, program):
        """Until no process of the Sprite is called so; init takes a moment to bury the dead."""
        async def none():
            return (await self.run(name, "pgrep", "-c", program)).out == "0\n"

        await until(none)

    async def fault(self, name, **more):
        answer = await self.call("POST", "/_emulator/faults", json={"name": name, **more})
        assert answer.status == 200, answer.text

    async def clear_faults(self):
        assert (await self.call("DELETE", "/_emulator/faults")).status == 204

    async def checkpoint(self, name, comment=None):
        """Make one; its id, from the last line of the stream."""
        body = {} if comment is None else {"comment": comment}
        lines = (await self.call("POST", f"/v1/sprites/{name}/checkpoint", json=body)).lines
        assert lines[-1]["type"] == "complete", lines
        return lines[-1]["data"].split()[1]

    async def restore(self, name, id):
        return (await self.call("POST", f"/v1/sprites/{name}/checkpoints/{id}/restore")).lines

    @contextlib.asynccontextmanager
    async def control(self, name):
        async with self.session.ws_connect(f"/v1/sprites/{name}/control") as ws:
            yield Control(ws)

    @contextlib.asynccontextmanager
    async def exec(self, name, *cmd, **params):
        """A command on a socket of its own."""
        query = [("cmd", word) for word in cmd]
        for key, value in params.items():
            query += [(key, item) for item in (value if isinstance(value, list) else [value])]
        async with self.session.ws_connect(f"/v1/sprites/{name}/exec", params=query) as ws:
            yield Socket(ws)

    async def run(self, name, *cmd, **params):
        """A command to its end on a socket of its own."""
        async with self.exec(name, *cmd, **params) as ws:
            return await ws.result()

    async def shell(self, name, line, **params):
        return await self.run(name, "bash", "-c", line, **params)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        return [json.loads(line) for line in self.text.splitlines()]


class Result:
    """What came over a socket for one command, in order."""

    def __init__(self):
        self.frames = []            # texts as objects, binary as bytes, envelopes as ("control", object)
        self.close = None           # close code, None if the socket was dropped, "open" if it is open

    def of(self, stream):
        return b"".join(frame[1:] for frame in self.frames if isinstance(frame, bytes) and frame[0] == stream)

    @property
    def out(self):
        return self.of(1).decode()

    @property
    def err(self):
        return self.of(2).decode()

    @property
    def raw(self):
        return b"".join(frame for frame in self.frames if isinstance(frame, bytes))

    @property
    def exits(self):
        return [frame[1] for frame in self.frames if isinstance(frame, bytes) and frame[:1] == b"\3"]

    @property
    def code(self):
        return self.exits[0] if self.exits else None

    def texts(self, type):
        return [frame for frame in self.frames if isinstance(frame, dict) and frame.get("type") == type]

    @property
    def envelopes(self):
        return [frame[1] for frame in self.frames if isinstance(frame, tuple)]


class Socket:
    def __init__(self, ws):
        self.ws = ws

    async def frame(self):
        """The next frame; None when there is none any more."""
        message = await asyncio.wait_for(self.ws.receive(), PATIENCE)
        if message.type is aiohttp.WSMsgType.TEXT:
            if message.data.startswith("control:"):
                return "control", json.loads(message.data[8:])
            return json.loads(message.data)
        return message.data if message.type is aiohttp.WSMsgType.BINARY else None

    async def frames_until(self, wanted):
        """Frames up to and including the first that `wanted` accepts."""
        result = Result()
        while (frame := await self.frame()) is not None:
            result.frames.append(frame)
            if wanted(frame):
                result.close = "open"
                return result
        result.close = self.ws.close_code if self.ws.close_code != 1006 else None
        return result

    async def result(self):
        return await self.frames_until(lambda frame: False)

    async def until_output(self, text):
        seen = b""
        result = Result()
        while text not in seen:
            frame = await self.frame()
            assert frame is not None, f"the socket closed before {text!r}; got {result.frames}"
            result.frames.append(frame)
            if isinstance(frame, bytes):
                seen += frame
        return result

    async def send(self, data):
        await (self.ws.send_bytes(data) if isinstance(data, bytes) else self.ws.send_str(json.dumps(data)))

    def reset(self):
        """Leave as a process that was killed with unread input does."""
        transport = self.ws._response.connection.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    async def gone(self):
        """Until the peer has dropped or closed the connection."""
        while await self.frame() is not None:
            pass


class Control(Socket):
    async def start(self, *cmd, op="exec", id=None, **args):
        message = {"type": "op.start", "op": op, "args": {"cmd": list(cmd), **args}}
        if id is not None:
            message["id"] = id
        await self.envelope(message)

    async def envelope(self, message):
        await self.ws.send_str("control:" + (message if isinstance(message, str) else json.dumps(message)))

    async def result(self):
        return await self.frames_until(lambda frame: frame[0] == "control" and frame[1]["type"] != "op.ack"
                                       if isinstance(frame, tuple) else False)

    async def run(self, *cmd, **args):
        await self.start(*cmd, **args)
        return await self.result()


async def until(condition, seconds=PATIENCE):
    """Poll an async condition."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)
