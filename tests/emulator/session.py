"""A command that runs in a Sprite, and whoever listens to it.

Output is read only as fast as the clients take it, so a slow client slows the process and
nothing piles up here. After the main process has ended, what is already in its pipes is
delivered; children that keep the pipes open go on without an audience.
"""
import array
import asyncio
import collections
import fcntl
import os
import signal
import struct
import termios
import time

import values
from sandbox import SandboxError

CHUNK = 32767               # with the id byte a frame of 32 KiB
LINGER = 0.15               # how long after the exit somebody else may still write
HISTORY = 65536
STDIN_BUFFER = 1 << 20
STDOUT, STDERR, TERMINAL = 1, 2, 0


class Session:
    def __init__(self, sprite, command, started):
        self.sprite = sprite
        self.command = command
        self.started = started
        self.id = str(started.pid)
        self.created = self.last_activity = time.time()
        self.loop = asyncio.get_running_loop()
        self.clients = []
        self.opened = asyncio.Event()       # nothing is read before the first client listens, or has left
        self.turn = asyncio.Lock()          # frames and replay leave in order
        self.history = collections.deque()
        self.history_size = 0
        self.history_limit = HISTORY
        self.bytes = 0
        self.code = None
        self.done = self.loop.create_future()
        self.waiting = False                # its client knows of it, and has told it neither its command nor that there is none
        self.waits = set()
        self.owed = {}
        self.lingered = False
        self.grace = None
        if command.tty:
            self.stdin = started.fds[0]
            outputs = {TERMINAL: started.fds[0]}
        else:
            self.stdin = started.fds[0] if command.stdin else None
            outputs = dict(zip((STDOUT, STDERR), started.fds[-2:]))
        self.outputs = outputs
        self.input = collections.deque()
        self.input_size = 0
        self.input_event = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.main = self.loop.create_task(self.run())

    # -- the process ----------------------------------------------------------

    async def run(self):
        pumps = [self.loop.create_task(self.pump(stream, fd)) for stream, fd in self.outputs.items()]
        writer = self.loop.create_task(self.write_input()) if self.stdin is not None else None
        try:
            self.code = await self.started.exit
        except SandboxError as error:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await self.end(writer)
            self.done.set_exception(error)
            self.done.exception()
            return
        for fd in self.outputs.values():
            self.owed[fd] = waiting_bytes(fd)
        self.loop.call_later(LINGER, self.stop_lingering)
        await asyncio.gather(*pumps)
        await self.end(writer)
        self.done.set_result(self.code)

    async def end(self, writer):
        if self.grace:
            self.grace.cancel()
        if writer:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        self.room.set()
        if self.stdin is not None and not self.command.tty:
            os.close(self.stdin)
        self.stdin = None
        for fd in self.outputs.values():
            if self.command.tty or self.code is None:
                os.close(fd)
            else:
                Drain(self.loop, fd)
        self.sprite.session_ended(self)

    def stop_lingering(self):
        self.lingered = True
        for wait in list(self.waits):
            if not wait.done():
                wait.set_result(None)

    async def pump(self, stream, fd):
        await self.opened.wait()
        while True:
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                if self.lingered:
                    return
                await self.wait_for(fd, self.loop.add_reader, self.loop.remove_reader)
                continue
            except OSError:
                return      # a terminal without a process reads as EIO
            if not data:
                return
            if fd in self.owed:
                self.owed[fd] -= len(data)
            await self.deliver(stream, data)
            if self.lingered and self.owed[fd] <= 0:
                return

    async def wait_for(self, fd, add, remove):
        wait = self.loop.create_future()
        self.waits.add(wait)
        add(fd, lambda: wait.done() or wait.set_result(None))
        try:
            await wait
        finally:
            self.waits.discard(wait)
            remove(fd)

    async def deliver(self, stream, data):
        self.last_activity = time.time()
        async with self.turn:
            self.remember(stream, data)
            for client in list(self.clients):
                try:
                    await client.output(stream, data)
                except ConnectionError:
                    self.detach(client)

    def remember(self, stream, data):
        self.bytes += len(data)
        self.history.append((stream, data))
        self.history_size += len(data)
        while self.history_size > self.history_limit:
            stream, oldest = self.history.popleft()
            rest = oldest[self.history_size - self.history_limit:]
            self.history_size -= len(oldest) - len(rest)
            if rest:
                self.history.appendleft((stream, rest))

    # -- clients --------------------------------------------------------------

    def run_ahead(self, history):
        """Go on without waiting for the first client; it will find this much of what was printed."""
        self.history_limit = history
        self.opened.set()

    async def attach(self, client, offset=0):
        """First it gets what was printed before, but for the first `offset` bytes of all output."""
        if self.grace:
            self.grace.cancel()
            self.grace = None
        async with self.turn:
            position = self.bytes - self.history_size
            for stream, data in list(self.history):
                missed = data[max(0, offset - position):]
                position += len(data)
                if missed:
                    await client.output(stream, missed)
            self.clients.append(client)
        self.opened.set()

    def detach(self, client):
        if client in self.clients:
            self.clients.remove(client)
        client.gone.set()
        self.opened.set()
        if not self.clients and self.code is None and self.command.max_run and not self.grace:
            self.grace = self.loop.call_later(self.command.max_run, self.outstay)

    def outstay(self):
        self.loop.create_task(self.signal(signal.SIGKILL))

    async def signal(self, number):
        """To the process group; on a terminal to the group in its foreground."""
        if self.code is not None:
            return
        if self.command.tty and self.stdin is not None:
            try:
                group = os.tcgetpgrp(self.stdin)
                if group > 1:
                    return os.killpg(group, number)
            except OSError:
                pass
        try:
            await self.sprite.sandbox.signal(self.started.number, number)
        except SandboxError:
            pass

    def resize(self, rows, cols):
        if self.command.tty and self.stdin is not None:
            self.command.rows, self.command.cols = rows, cols
            fcntl.ioctl(self.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    # -- stdin ----------------------------------------------------------------

    async def feed(self, data):
        """Queue input; None is EOF. Waits while a process that does not read has a full buffer."""
        if self.stdin is None:
            return
        self.input.append(data)
        self.input_size += len(data or b"")
        self.input_event.set()
        if self.input_size > STDIN_BUFFER:
            self.room.clear()
            await self.room.wait()

    async def write_input(self):
        while True:
            while not self.input:
                self.input_event.clear()
                await self.input_event.wait()
            data = self.input[0]
            if data is None:
                if not self.command.tty:
                    os.close(self.stdin)
                    self.stdin = None
                self.input.clear()
                self.room.set()
                return
            try:
                written = os.write(self.stdin, data)
            except BlockingIOError:
                await self.wait_for(self.stdin, self.loop.add_writer, self.loop.remove_writer)
                continue
            except OSError:
                written = len(data)     # nobody reads any more
            self.last_activity = time.time()
            self.input_size -= written
            if written == len(data):
                self.input.popleft()
            else:
                self.input[0] = data[written:]
            if self.input_size <= STDIN_BUFFER:
                self.room.set()

    # -- what clients are told ------------------------------------------------

    def info(self, owner):
        tty = self.command.tty
        return {"type": "session_info", "session_id": self.id, "command": self.text(), "created": int(self.created),
                "cols": self.command.cols if tty else 0, "rows": self.command.rows if tty else 0,
                "is_owner": owner, "tty": tty}

    def text(self):
        return " ".join([self.started.path, *self.command.argv[1:]])

    def describe(self):
        return {"id": self.id, "command": self.text(), "workdir": self.command.dir or "/home/sprite",
                "tty": self.command.tty, "created": values.stamp(self.created),
                "bytes_per_second": round(self.bytes / max(1.0, time.time() - self.created), 1),
                "is_active": bool(self.clients), "last_activity": values.stamp(self.last_activity)}


class Drain:
    """Keeps a pipe readable for children that outlived their command, so that writing does not end them.

    It reads slowly: a child that never stops writing must not occupy the emulator.
    """

    PAUSE = 0.01

    def __init__(self, loop, fd):
        self.loop = loop
        self.fd = fd
        self.listen()

    def listen(self):
        self.loop.add_reader(self.fd, self.read)

    def read(self):
        self.loop.remove_reader(self.fd)
        try:
            data = os.read(self.fd, CHUNK)
        except OSError:
            data = b""
        if data:
            self.loop.call_later(self.PAUSE, self.listen)
        else:
            os.close(self.fd)


def waiting_bytes(fd):
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
