"""A process of the emulator's own choosing inside a Sprite, with its pipes as streams. No session: clients do not see it."""
import asyncio
import os
import signal

import errors
from command import Command
from sandbox import INSIDE, PYTHON, SandboxError, StartError

LIMIT = 1 << 16


def inside(sprite, name, *arguments, stdin=False):
    """One of the programs in inside/."""
    argv = [PYTHON, "-I", "-S", "-X", "utf8", f"{INSIDE}/{name}.py", *arguments]
    return Program(sprite, Command(argv=argv, path=PYTHON, env=[], dir="/", tty=False, rows=24, cols=80, stdin=stdin, max_run=0,
                                   environment=sprite.default_environment()))


class Program:
    """Use as a context manager: whatever happens, it does not outlive its user."""

    def __init__(self, sprite, command):
        self.sprite = sprite
        self.command = command
        self.input = self.output = self.complaints = self.started = None
        self.transports = []

    async def __aenter__(self):
        self.sandbox = self.sprite.sandbox
        if self.sandbox is None:
            raise ConnectionResetError("the Sprite's machine is gone")
        try:
            self.started = await self.sandbox.run(self.command)
        except StartError as error:
            raise errors.Refusal(500, f"failed to start process: {error}\n") from None
        except SandboxError as error:
            raise ConnectionResetError(str(error)) from None
        *stdin, output, complaints = self.started.fds
        self.output = await self.reader(output)
        self.complaints = await self.reader(complaints)
        if stdin:
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.connect_write_pipe(
                lambda: asyncio.streams.FlowControlMixin(loop), os.fdopen(stdin[0], "wb", 0))
            self.input = asyncio.StreamWriter(transport, protocol, None, loop)
            self.transports.append(transport)
        return self

    async def reader(self, fd):
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=LIMIT, loop=loop)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream, loop=loop),
                                                    os.fdopen(fd, "rb", 0))
        self.transports.append(transport)
        return stream

    async def __aexit__(self, *_):
        for transport in self.transports:
            transport.close()
        await self.signal(signal.SIGKILL)

    async def signal(self, number):
        """To its process group, if it is still there."""
        if not self.started.exit.done():
            try:
                await self.sandbox.signal(self.started.number, number)
            except SandboxError:
                pass

    async def failure(self):
        """Why there was no answer: its last words, or the loss of the machine."""
        words = (await self.complaints.read()).decode(errors="replace").strip()
        if not words:
            return ConnectionResetError("the Sprite's machine is gone")
        return RuntimeError(f"{self.command.argv}: {words}")
