"""The control socket: commands one after another on one WebSocket, wrapped in `control:` envelopes."""
import asyncio
import json
import traceback

from aiohttp import WSMsgType

import command as commands
import control_ops
from exec_ws import EOF, Channel, Operation, after, open_socket, parse
from wire import cut

PREFIX = "control:"


class Control:
    def __init__(self, ws, request, sprite):
        self.ws = ws
        self.sprite = sprite
        self.channel = Channel(ws, request, sprite)
        self.operation = None
        self.task = None

    async def send(self, message):
        message = self.channel.faults.damage(message, self.sprite.name)
        await self.channel.send_text(PREFIX + json.dumps(message))

    async def refuse(self, code, text, id="", op=None):
        message = {"type": "op.error", "id": id}
        if op is not None:
            message["op"] = op
        await self.send({**message, "args": {"code": code, "message": text, "error": text}})

    # -- inbound --------------------------------------------------------------

    async def serve(self, first=None):
        """Until the client leaves or the connection is cut; `first` is an operation asked for in the URL."""
        try:
            if first:
                await self.start(first)
            async for message in self.ws:
                if message.type is WSMsgType.BINARY:
                    await self.receive(message.data)
                elif message.type is WSMsgType.TEXT:
                    await self.receive_text(message.data)
        except ConnectionError:
            pass
        finally:
            if self.task:
                self.task.cancel()
                await asyncio.gather(self.task, return_exceptions=True)

    async def receive_text(self, text):
        if text.startswith(PREFIX):
            await self.receive_envelope(text[len(PREFIX):])
            return
        message = parse(text)
        kind = message.get("type") if message else None
        if kind in ("keepalive", "dial"):
            return
        if kind == "release" and self.operation:
            self.operation.release()
            return
        bare = control_ops.from_bare(self, message) if self.operation is None else None
        if bare:
            self.begin(bare)
        else:
            await self.receive(message)

    async def receive(self, item):
        """A frame of the operation: bytes, or a text message. Texts overtake input that the process does not take."""
        if self.operation is None:
            # SDKs end the input of every command at once; one that ended before is no reason to fail the next
            if item != bytes([EOF]):
                await self.refuse("op.not_active", "no operation is active")
        elif isinstance(item, bytes):
            await self.operation.push(item)
        else:
            await self.operation.message(item)

    async def receive_envelope(self, text):
        message = parse(text)
        if message is None:
            await self.refuse("op.not_active", "not a JSON envelope")
        elif message.get("type") == "op.start" and message.get("op"):
            await self.start(message)

    # -- operations -----------------------------------------------------------

    async def start(self, message):
        id, op = message.get("id", ""), message["op"]
        if self.operation:
            await self.refuse("op.busy", "another operation is active", id, op)
            return
        refusal = self.channel.faults.hit("op_error", self.sprite.name) if op == "exec" else None
        if refusal and not refusal["acknowledged"]:
            await self.refuse(refusal["code"], "refused by a fault", id, op)
            return
        operation = ControlOperation(self, message, refusal) if op == "exec" else control_ops.from_envelope(self, message)
        if operation:
            self.begin(operation)
        else:
            await self.refuse("op.not_found", f"unknown operation: {op}", id, op)

    def begin(self, operation):
        self.operation = operation
        self.task = asyncio.ensure_future(operation.run())


class ControlOperation:
    """One op.start up to its op.complete."""

    def __init__(self, control, message, refusal):
        self.control = control
        self.refusal = refusal              # told after the acknowledgement
        self.id = message.get("id", "")
        self.released = asyncio.Event()
        self.inner = Operation(control.channel, control.sprite)
        try:
            self.prepare(message.get("args"))
            self.problem = None
        except commands.BadCommand as error:
            self.problem = str(error)

    def prepare(self, args):
        args = args if isinstance(args, dict) else {}
        id, sessions = commands.args_text(args, "id"), self.control.sprite.sessions
        if id:
            if id not in sessions:
                raise commands.BadCommand(f"session not found: {id}")
            self.inner = Operation(self.control.channel, self.control.sprite, attach=sessions[id],
                                   offset=commands.output_offset(commands.args_text(args, "output_offset")))
        else:
            self.inner.command = commands.from_args(args)

    async def push(self, data):
        await self.inner.push(data)

    async def message(self, message):
        await self.inner.message(message)

    def release(self):
        self.released.set()

    async def run(self):
        self.control.sprite.hold()
        try:
            await self.run_inner()
            await self.complete()
        except ConnectionError:
            await close_quietly(self.control.ws)
        except Exception:
            traceback.print_exc()
            cut(self.control.channel.transport)
        finally:
            self.control.sprite.release()

    async def run_inner(self):
        if self.problem:
            await self.acknowledge()
            await self.inner.refuse(self.problem)
            return
        run = asyncio.ensure_future(self.inner.run(self.acknowledge))
        released = asyncio.ensure_future(self.released.wait())
        try:
            await asyncio.wait({run, released}, return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                run.result()
        finally:
            for task in (run, released):
                task.cancel()
            await asyncio.gather(run, released, return_exceptions=True)

    async def acknowledge(self):
        await self.control.send({"type": "op.ack", "id": self.id})
        if self.refusal:
            await self.control.refuse(self.refusal["code"], "refused by a fault", self.id, "exec")

    async def complete(self):
        inner = self.inner
        args = {"ok": inner.error is None}
        if inner.error is not None:
            args["error"] = inner.error
        if inner.code is not None and not self.control.sprite.settings.live_op_complete:
            args["exitCode"] = inner.code
        if inner.inbox:
            args["dropped"] = len(inner.inbox)
        # the client may start the next one as soon as it reads this
        self.control.operation = None
        await self.control.send({"type": "op.complete", "id": self.id, "args": args})


async def close_quietly(ws):
    try:
        await ws.close()
    except ConnectionError:
        pass


async def serve(request, sprite):
    ws = await open_socket(request)
    control = Control(ws, request, sprite)
    hole = sprite.world.faults.hit("blackhole", sprite.name, on="open")
    if hole:
        sprite.world.background(control.channel.vanish(hole.delay))
    pause = sprite.world.faults.hit("pause_under_socket", sprite.name, on="open")
    if pause:
        sprite.world.background(after(pause.delay, sprite.pause))
    await control.serve(from_query(request.query))
    return ws


def from_query(query):
    """An operation asked for in the URL starts at once."""
    if "op" not in query:
        return None
    args = {key: query.getall(key) for key in query if key != "op"}
    return {"type": "op.start", "op": query["op"], "id": "", "args": args}
