"""What a control socket carries besides commands: a TCP connection, and the file operations of the Go SDK.

A proxy comes as `control:` op.start, or bare as {"type": "start", "operation": "proxy", "params"}. File operations come
bare: {"type": "op.start", "op": "fs.…", "args": a query string}, their content as one binary frame.
"""
import asyncio
import contextlib
import json
import traceback
import urllib.parse

from aiohttp import WSCloseCode

import errors
import files_http
from exec_ws import LOOK_FOR_CLIENT, parse
from program import inside
from sockets_ws import CHUNK, race, read_target
from wire import cut

MAX_FRAMES = 64
OPERATIONS = {"read": ("path",), "write": ("path",), "list": ("path",), "delete": ("path",), "rename": ("source", "dest"),
              "copy": ("source", "dest"), "chmod": ("path",), "chown": ("path",)}


class SideOperation:
    """One at a time, like a command; `end` says how it is reported."""

    def __init__(self, control):
        self.control = control
        self.sprite = control.sprite
        self.frames = asyncio.Queue(MAX_FRAMES)
        self.released = asyncio.Event()

    async def push(self, data):
        """A frame of the client; waits while too many are pending."""
        while not self.released.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.frames.put(data), LOOK_FOR_CLIENT)
                return
            if self.control.channel.left():
                await self.control.channel.cut()

    async def message(self, message):
        """No text means anything to it."""

    def release(self):
        self.released.set()

    async def run(self):
        self.sprite.hold()
        try:
            await race(self.act(), self.released.wait())
            self.control.operation = None
            await self.report()
        except ConnectionError:
            with contextlib.suppress(ConnectionError):
                await self.control.ws.close()
        except errors.Refusal as refusal:
            self.control.operation = None
            await self.refuse(refusal)
        except Exception:
            traceback.print_exc()
            cut(self.control.channel.transport)
        finally:
            self.released.set()
            self.control.operation = None
            self.sprite.release()

    async def text(self, message):
        await self.control.channel.text(message)


class Proxy(SideOperation):
    """Bytes both ways, until the target ends it or the client releases it."""

    def __init__(self, control, args, id=None):
        super().__init__(control)
        self.id = id            # None: asked for bare
        args = {key: value[0] if isinstance(value, list) and value else value for key, value in args.items()}
        self.target = read_target(args)

    async def act(self):
        if self.id is not None:
            await self.control.send({"type": "op.ack", "id": self.id})
        if self.target is None:
            raise errors.Refusal(400, "host and port are required")
        async with inside(self.sprite, "dial", *self.target, stdin=True) as program:
            head = parse((await program.output.readline()).decode())
            if head is None:
                raise await program.failure()
            if head["status"] != "connected":
                raise errors.Refusal(502, head["error"])
            await self.text(head)
            await race(self.inward(program), self.outward(program))

    async def inward(self, program):
        while True:
            program.input.write(await self.frames.get())
            await program.input.drain()

    async def outward(self, program):
        while data := await program.output.read(CHUNK):
            await self.control.channel.binary(data)

    async def report(self):
        if self.id is not None:
            await self.control.send({"type": "op.complete", "id": self.id, "args": {"ok": True}})
        elif not self.released.is_set():
            await self.control.ws.close(code=WSCloseCode.OK)        # the only end that such a client knows

    async def refuse(self, refusal):
        if self.id is None:
            await self.text({"status": "failed", "error": refusal.body})
        else:
            await self.control.send({"type": "op.complete", "id": self.id, "args": {"ok": False, "error": refusal.body}})


class Files(SideOperation):
    """One file operation."""

    def __init__(self, control, operation, args):
        super().__init__(control)
        self.operation = operation
        self.args = dict(urllib.parse.parse_qsl(args)) if isinstance(args, str) else {}

    async def act(self):
        args = files_http.check({**self.args, **files_http.switches(self.args)}, OPERATIONS[self.operation])
        if "start" in args or "end" in args:
            args["range"] = f"bytes={args.get('start', 0)}-{args.get('end', '')}"
        async with inside(self.sprite, "files", self.operation, json.dumps(args), stdin=self.operation == "write") as program:
            if self.operation == "write":
                program.input.write(await self.frames.get())
                program.input.close()
            if self.operation == "read":
                return await self.send_content(program, args["path"])
            result = await files_http.read_result(program)
        if result["status"] != 200:
            raise errors.Refusal(result["status"], result["body"])
        await self.text(result["body"])

    async def send_content(self, program, path):
        head = parse((await program.output.readline()).decode())
        if head is None:
            raise await program.failure()
        if "body" in head:
            raise errors.Refusal(head["status"], head["body"])
        content = await files_http.read_all(program)
        await self.text({"path": path, "size": len(content)})
        await self.control.channel.binary(content)

    async def report(self):
        await self.text({"type": "op.complete", "args": {"ok": True}})

    async def refuse(self, refusal):
        await self.text(refusal.body)


def from_envelope(control, message):
    """An operation that is no command, or None."""
    args = message.get("args")
    if message["op"] == "proxy":
        return Proxy(control, args if isinstance(args, dict) else {}, message.get("id", ""))
    return None


def from_bare(control, message):
    match message:
        case {"type": "start", "operation": "proxy", "params": dict(params)}:
            return Proxy(control, params)
        case {"type": "op.start", "op": str(op)} if op.removeprefix("fs.") in OPERATIONS and op.startswith("fs."):
            return Files(control, op.removeprefix("fs."), message.get("args"))
    return None
