"""Commands over WebSocket: one operation, its frames, and GET /exec[/{session}] that carries it.

Frames to the client: text debug, text session_info, output, and only after all output text
exit, then (without a terminal) frame 3. /control carries the same operation (control.py).
"""
import asyncio
import collections
import json
import select
import struct
import time

from aiohttp import WSMsgType, web

import command as commands
import errors
from sandbox import SandboxError, StartError
from session import TERMINAL
from wire import cut_when_sent

STDIN, EXIT, EOF = 0, 3, 4
NOT_STARTED = 127
MAX_MESSAGE = 16 << 20
CLOSE_TIMEOUT = 120      # for what a slow client has not read yet
INBOX = 2 << 20            # bytes of frames that wait for the process
LOOK_FOR_CLIENT = 0.25


class Cut(ConnectionError):
    """The connection is gone, by a fault or by itself."""


class Channel:
    """Our end of one WebSocket."""

    def __init__(self, ws, request, sprite):
        self.ws = ws
        self.transport = request.transport
        self.sprite = sprite
        self.faults = sprite.world.faults
        self.present = asyncio.Event()      # cleared while nothing is read or sent
        self.present.set()

    async def text(self, message):
        await self.send_text(json.dumps(self.faults.damage(message, self.sprite.name)))

    async def send_text(self, text):
        await self.present.wait()
        if self.ws.closed:
            raise Cut("the socket is closed")
        await self.ws.send_str(text)

    async def binary(self, data):
        await self.present.wait()
        if self.ws.closed:
            raise Cut("the socket is closed")
        await self.ws.send_bytes(data)

    async def half_frame(self, data):
        """The header and half the payload of a frame, then nothing more."""
        head = b"\x82" + (bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data)))
        self.transport.write((head + data)[:len(head) + len(data) // 2])

    def left(self):
        """Whether the peer has closed its side, seen without reading."""
        sock = self.transport.get_extra_info("socket")
        if self.transport.is_closing() or sock is None or sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    async def vanish(self, seconds):
        """Take nothing in and let nothing out, as if the path to the client were gone; then go on, if it is still there."""
        end = time.monotonic() + seconds
        self.present.clear()
        while time.monotonic() < end and not self.left():
            self.transport.pause_reading()      # aiohttp may have resumed it
            await asyncio.sleep(min(LOOK_FOR_CLIENT, end - time.monotonic()))
        self.present.set()
        if self.left():
            await self.cut()
        self.transport.resume_reading()

    async def cut(self):
        """Once everything sent so far has reached the client."""
        await cut_when_sent(self.transport)
        raise Cut("cut by a fault")

    async def close(self, code):
        """After everything sent so far, in the middle of whatever goes on."""
        await self.present.wait()
        self.transport.write(struct.pack(">BBH", 0x88, 2, code))
        self.transport.close()
        raise Cut("closed by a fault")


class Operation:
    """One command for one client: starts it (or attaches to it), feeds it, reports it."""

    def __init__(self, channel, sprite, command=None, attach=None, offset=0):
        self.channel = channel
        self.sprite = sprite
        self.command = command
        self.session = attach
        self.attaching = attach is not None
        self.offset = offset                # bytes of output that an attaching client has already
        self.gone = asyncio.Event()         # set by the session when it has let us go
        self.running = asyncio.Event()      # the session is known, or will never be
        self.over = False
        self.inbox = collections.deque()    # frames from the client that the process has not taken
        self.inbox_size = 0
        self.arrived = asyncio.Event()
        self.room = asyncio.Event()
        self.struck = {}
        self.sent = {}                      # stream -> bytes, for lose_bytes_above
        self.fed = 0                        # bytes of standard input, for lose_input_above
        self.ordered = False                # what waits has been told its command
        self.held = collections.deque()     # the last output, for early_exit and late_output
        self.code = None
        self.error = None

    def fault(self, name, on=None):
        """Each fault has one chance for each command."""
        if (name, on) not in self.struck:
            self.struck[name, on] = self.channel.faults.hit(name, self.sprite.name, on=on)
        return self.struck[name, on]

    async def cut_by(self, name):
        fault = self.fault(name)
        if fault and fault["close"]:
            await self.channel.close(fault["close"])
        if fault:
            await self.channel.cut()

    async def wait_through(self, on):
        """Whatever holds the first output, or the exit, back."""
        stall, hole = self.fault("stall", on), self.fault("blackhole", on)
        if stall:
            await asyncio.sleep(stall.delay)
        if hole:
            await self.channel.vanish(hole.delay)

    # -- the course of it -----------------------------------------------------

    async def run(self, acknowledge=None):
        """Everything up to the last frame. Cut or another ConnectionError when the client was lost."""
        feeder = asyncio.ensure_future(self.take_frames())
        try:
            if not self.attaching and not self.waits():
                await self.strike_start()
            if acknowledge:
                await acknowledge()
            if not await self.begin():
                return
            self.running.set()
            await self.session.attach(self, self.offset)
            await self.follow_and_tell_ports()
            await self.report()
        finally:
            self.over = True
            self.running.set()
            self.room.set()
            feeder.cancel()
            if self.session:
                self.session.waiting = False
                self.session.detach(self)

    def waits(self):
        """For a command, so that what strikes starts strikes when that comes."""
        return self.command is not None and self.command.waits

    async def strike_start(self):
        await self.cut_by("cut_before_start")
        hole = self.fault("blackhole", "start")
        if hole:
            await self.channel.vanish(hole.delay)

    async def strike_started(self):
        self.schedule_accidents()
        await self.cut_by("cut_after_start")

    async def begin(self):
        if not self.attaching:
            before = time.monotonic()
            try:
                self.session = await self.start()
            except StartError as error:
                await self.refuse(str(error))
                return False
            except SandboxError:
                await self.channel.cut()
            if not self.waits():
                await self.strike_started()
            race = self.fault("fast_output") if not self.waits() else None
            if race:
                self.session.run_ahead(max(0, int(race["history"])))
                await asyncio.wait({self.session.done}, timeout=race.delay)
                if race["closed"] and self.session.done.done():
                    return False
            await self.channel.text({"type": "debug", "msg": f"session_created cmd={self.command.argv[0]}",
                                     "pid": self.session.started.pid,
                                     "t_ms": round((time.monotonic() - before) * 1000)})
            if race:
                await self.tell_path()
        await self.channel.text(self.session.info(owner=not self.attaching))
        self.session.waiting = self.waits() and not self.inbox
        return True

    async def tell_path(self):
        """By this the service can be seen to have come late."""
        session = self.session
        path = "normal_path" if session.code is None else f"fast_path attach_err=session_ended exit_code={session.code}"
        await self.channel.text({"type": "debug", "msg": f"{path} history_len={session.history_size}", "pid": session.started.pid})

    async def start(self):
        """A start that was asked for happens, even if the client leaves before it is known."""
        starting = self.sprite.world.background(self.sprite.execute(self.command))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(
                lambda task: task.cancelled() or task.exception() or task.result().detach(self))
            raise

    async def refuse(self, reason):
        self.code, self.error = NOT_STARTED, reason
        await self.channel.text({"type": "error", "message": reason, "error": reason})
        await self.channel.text({"type": "exit", "exit_code": self.code})
        if not (self.command and self.command.tty):
            await self.channel.binary(bytes([EXIT, self.code]))

    def schedule_accidents(self):
        pause = self.channel.faults.hit("pause_under_socket", self.sprite.name, on="start")
        death = self.fault("kill_vm")
        if pause:
            self.sprite.world.background(after(pause.delay, self.sprite.pause))
        if death:
            self.sprite.world.background(after(death.delay, self.sprite.crash))

    async def follow_and_tell_ports(self):
        ports = self.sprite.ports.join()
        telling = asyncio.ensure_future(self.tell_ports(ports))
        try:
            await self.follow()
        finally:
            self.sprite.ports.leave(ports)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def tell_ports(self, ports):
        while True:
            await self.channel.text(await ports.get())

    async def follow(self):
        """Until the command has ended and its output has left, or the client has gone."""
        done, gone = self.session.done, asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if not done.done():
            raise Cut("the client was lost")
        try:
            self.code = done.result()
        except SandboxError:
            await self.channel.cut()

    async def report(self):
        if not self.sent:
            await self.wait_through("output")
        await self.wait_through("exit")
        await self.cut_by("cut_before_exit")
        if self.fault("no_exit_code"):
            self.code = None
            return
        await self.channel.text({"type": "exit", "exit_code": self.code})
        late = self.fault("late_output")
        if not late:
            await self.send_held()
        if not self.session.command.tty:
            await self.report_frame()
        if late:
            await self.send_held()
        await self.cut_by("cut_after_exit")

    async def report_frame(self):
        if (not self.sent and self.fault("cut_mid_frame", "output")) or self.fault("cut_mid_frame", "exit"):
            await self.channel.half_frame(bytes([EXIT, self.code]))
            await self.channel.cut()
        await self.channel.binary(bytes([EXIT, self.code]))
        twice = self.fault("duplicate_exit")
        if twice:
            await self.channel.binary(bytes([EXIT, self.code if twice["code"] is None else int(twice["code"]) & 255]))

    # -- output ---------------------------------------------------------------

    async def output(self, stream, data):
        """Called by the session for each piece, one at a time."""
        late = self.fault("late_output")
        self.held.append((stream, data))
        await self.send_held(int(late["pieces"]) if late else 1 if self.fault("early_exit") else 0)

    async def send_held(self, but=0):
        while len(self.held) > but:
            await self.send_output(*self.held.popleft())

    async def send_output(self, stream, data):
        if not self.sent:
            await self.strike_first(stream, data)
        sent = self.sent[stream] = self.sent.get(stream, 0) + len(data)
        loss = self.fault("lose_bytes_above")
        if loss:
            data = data[:max(0, len(data) - max(0, sent - int(loss["bytes"])))]
        drip = self.fault("slow_drip")
        step = max(1, int(drip["bytes"])) if drip else max(1, len(data))
        for start in range(0, len(data), step):
            await self.channel.binary(frame(stream, data[start:start + step]))
            if drip:
                await asyncio.sleep(drip.delay)
        await self.cut_by("cut_after_output")

    async def strike_first(self, stream, data):
        await self.wait_through("output")
        await self.cut_by("cut_before_output")
        if self.fault("cut_mid_frame", "output"):
            await self.channel.half_frame(frame(stream, data))
            await self.channel.cut()

    # -- input ----------------------------------------------------------------

    async def push(self, data):
        """Accept a binary frame of the client; waits while too many are pending."""
        while self.inbox_size >= INBOX and not self.over:
            self.room.clear()
            waiting = asyncio.ensure_future(self.room.wait())
            await asyncio.wait({waiting}, timeout=LOOK_FOR_CLIENT)
            waiting.cancel()
            if self.channel.left():     # not reading, nothing else would tell
                await self.channel.cut()
        if self.session:
            self.session.waiting = False
        if not self.over:
            self.inbox.append(data)
            self.inbox_size += len(data)
            self.arrived.set()

    async def take_frames(self):
        """Frames that come before the process wait for it."""
        await self.running.wait()
        while self.session:
            while not self.inbox:
                self.arrived.clear()
                await self.arrived.wait()
            if self.session.code is not None:
                return      # what is left over counts as dropped
            try:
                await self.feed(self.inbox[0])
            except Cut:
                return      # by a fault; whoever reads the socket sees it
            self.inbox_size -= len(self.inbox.popleft())
            self.room.set()

    async def feed(self, data):
        if self.session.command.tty:
            await self.session.feed(data if self.session.command.stdin else b"")
        elif data[:1] == bytes([STDIN]) and self.waits() and not self.ordered:
            await self.start_ordered(data[1:])
        elif data[:1] == bytes([STDIN]):
            await self.session.feed(self.lose_input(data[1:]))
        elif data[:1] == bytes([EOF]):
            await self.session.feed(None)

    async def start_ordered(self, data):
        """What waits is told its command."""
        self.ordered = True
        await self.strike_start()
        self.sprite.world.count_ids(commands.ordered_ids(data))
        await self.session.feed(self.lose_input(data))
        await self.strike_started()

    def lose_input(self, data):
        loss = self.fault("lose_input_above") if data else None
        self.fed += len(data)
        return data[:max(0, len(data) - max(0, self.fed - int(loss["bytes"])))] if loss else data

    async def message(self, message):
        """A text message of the client; unknown ones mean nothing."""
        await self.running.wait()
        if self.session is None:
            return
        match message:
            case {"type": "resize", "rows": int(rows), "cols": int(cols)} if 0 < rows < 65536 and 0 < cols < 65536:
                self.session.resize(rows, cols)
            case {"type": "signal", "signal": str(name)}:
                number = commands.signal_number(name)
                if number is not None:
                    await self.session.signal(number)


def frame(stream, data):
    return data if stream == TERMINAL else bytes([stream]) + data


async def after(seconds, action):
    await asyncio.sleep(seconds)
    await action()


def parse(text):
    """A JSON object, or None."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


# -- GET /v1/sprites/{name}/exec ----------------------------------------------

async def open_socket(request):
    """Accept the upgrade, without compression and without a heartbeat: some clients never answer pings."""
    ws = web.WebSocketResponse(compress=False, autoping=True, max_msg_size=MAX_MESSAGE, timeout=CLOSE_TIMEOUT)
    if not ws.can_prepare(request).ok:
        raise errors.Refusal(400, "bad upgrade: not a WebSocket handshake\n")
    ws.headers["X-Sprite-Capabilities"] = "signal"
    await ws.prepare(request)
    return ws


async def serve(request, sprite, command=None, attach=None, offset=0):
    """One command, or one attachment, on a socket of its own."""
    ws = await open_socket(request)
    channel = Channel(ws, request, sprite)
    operation = Operation(channel, sprite, command, attach, offset)
    reader = asyncio.ensure_future(read(ws, operation))
    run = asyncio.ensure_future(operation.run())
    try:
        await asyncio.wait({reader, run}, return_when=asyncio.FIRST_COMPLETED)
        if run.done() and not run.exception():
            if sprite.settings.exit_tail:
                await asyncio.wait({reader}, timeout=sprite.settings.exit_tail)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await ws.close(code=1000)
        elif run.done() and not isinstance(run.exception(), ConnectionError):
            raise run.exception()
    finally:
        for task in (reader, run):
            task.cancel()
        await asyncio.gather(reader, run, return_exceptions=True)
    return ws


async def read(ws, operation):
    """Until the client has left."""
    try:
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                await operation.push(message.data)
            elif message.type is WSMsgType.TEXT:
                await operation.message(parse(message.data))
    except ConnectionError:
        pass
