"""A program of the emulator's own that runs inside a Sprite (inside/*.py), with its pipes as streams."""
import asyncio
import os
import signal

import errors
from command import Command
from sandbox import INSIDE, PYTHON, SandboxError, StartError

LIMIT = 1 << 16


class Program:
    """Use as a context manager: whatever happens, it does not outlive its request."""

    def __init__(self, sprite, name, *arguments, stdin=False):
        self.sprite = sprite
        self.command = Command(argv=[PYTHON, "-I", "-S", "-X", "utf8", f"{INSIDE}/{name}.py", *arguments], path=PYTHON,
                               env=[], dir="/", tty=False, rows=24, cols=80, stdin=stdin, max_run=0)
        self.input = self.output = self.started = None
        self.transports = []

    async def __aenter__(self):
        self.sandbox = self.sprite.sandbox
        if self.sandbox is None:
            raise ConnectionResetError("the Sprite's machine is gone")
        self.command.resolve_environment(self.sprite.default_environment())
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
        if not self.started.exit.done():
            try:
                await self.sandbox.signal(self.started.number, signal.SIGKILL)
            except SandboxError:
                pass

    async def failure(self):
        """Why there was no answer: its last words, or the loss of the machine."""
        words = (await self.complaints.read()).decode(errors="replace").strip()
        if not words:
            return ConnectionResetError("the Sprite's machine is gone")
        return RuntimeError(f"{self.command.argv[5]}: {words}")
