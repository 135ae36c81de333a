"""Commands over plain HTTP: POST exec, the list of sessions, and their kill."""
import asyncio
import json
import signal

from aiohttp import web

import command as commands
import errors
import values
from sandbox import SandboxError, StartError

EXIT = 3
EXIT_PAUSE = 0.005          # keeps the exit frame out of the last output's chunk, where clients take chunks for frames
KILL_TIMEOUT = 10.0
LOOK_FOR_CLIENT = 0.1
READ = 65536
REFUSED = {"tty": "TTY not supported on POST /exec\n", "id": "Unsupported parameters for POST /exec\n",
           "detachable": "Unsupported parameters for POST /exec\n", "cc": "Unsupported parameters for POST /exec\n"}


class Stream:
    """The client of a POST exec: one frame for each chunk, unless `merged` is the size of chunks that are not frames."""

    def __init__(self, response, merged=None):
        self.response = response
        self.merged = merged
        self.kept = bytearray()
        self.gone = asyncio.Event()

    async def output(self, stream, data):
        if self.merged:
            self.kept += bytes([stream]) + data
        else:
            await self.response.write(bytes([stream]) + data)

    async def end(self, code):
        await asyncio.sleep(EXIT_PAUSE)
        self.kept += bytes([EXIT, code])
        size = self.merged or len(self.kept)
        for start in range(0, len(self.kept), size):
            await self.response.write(self.kept[start:start + size])
        await self.response.write_eof()


async def post(request, sprite):
    for parameter, text in REFUSED.items():
        if parameter in request.query:
            raise errors.Refusal(400, text)
    try:
        command = commands.from_query(request.query)
    except commands.BadCommand as error:
        raise errors.Refusal(400, f"{error}\n") from None
    try:
        session = await sprite.execute(command)
    except StartError as error:
        raise errors.Refusal(500, f"failed to start process: {error}\n") from None
    except SandboxError as error:
        raise errors.Refusal(500, f"failed to create runner: {error}\n") from None
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream",
                                           "X-Content-Type-Options": "nosniff"})
    fault = sprite.world.faults.hit("merged_frames", sprite.name, "POST")
    stream = Stream(response, max(1, int(fault["bytes"])) if fault else None)
    feeding = asyncio.ensure_future(feed(request, session))
    try:
        await response.prepare(request)
        await session.attach(stream)
        if not await until_done(request, session, stream):
            return response
        await stream.end(session.code)
    except SandboxError:
        request.transport.abort()
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        session.detach(stream)
    return response


async def feed(request, session):
    if session.stdin is None:
        return
    async for data in request.content.iter_chunked(READ):
        await session.feed(data)
    await session.feed(None)


async def until_done(request, session, stream):
    """False when the client left first."""
    while True:
        done, _ = await asyncio.wait({session.done}, timeout=LOOK_FOR_CLIENT)
        if done:
            session.done.result()
            return True
        if stream.gone.is_set() or request.transport is None or request.transport.is_closing():
            return False


# -- sessions -----------------------------------------------------------------

def list_sessions(sprite):
    sessions = [session.describe() for session in sprite.sessions.values()]
    return {"count": len(sessions), "sessions": sessions}


def find_session(sprite, id):
    session = sprite.sessions.get(id)
    if session is None:
        raise errors.Refusal(410 if id in sprite.ended else 404,
                             f"session already exited: {id}\n" if id in sprite.ended else f"session not found: {id}\n")
    return session


async def kill(request, sprite, id):
    """Signal a session and report as it ends. A timeout of 0 sends the signal and waits for nothing."""
    session = find_session(sprite, id)
    number = commands.signal_number(request.query.get("signal", "SIGTERM"))
    if number is None:
        raise errors.Refusal(400, f"unknown signal: {request.query['signal']}\n")
    try:
        timeout = values.duration(request.query["timeout"]) if request.query.get("timeout") else KILL_TIMEOUT
    except ValueError as error:
        raise errors.Refusal(400, f"invalid timeout: {error}\n") from None
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-cache",
                                           "X-Content-Type-Options": "nosniff"})
    await response.prepare(request)

    async def event(type, **more):
        await response.write(json.dumps({"type": type, **more}).encode() + b"\n")

    pid = session.started.pid
    name = signal.Signals(number).name
    await session.signal(number)
    await event("signal", message=f"sent {name} to process group {pid}", signal=name, pid=pid)
    ended = await wait_for_end(session, timeout)
    if ended:
        await event("exited", message="process exited", pid=pid)
        if session.command.tty:
            await event("signal", message="closed the terminal", signal="SIGHUP", pid=pid)
    elif timeout:
        await event("timeout", message=f"still running after {timeout:g}s")
        await session.signal(signal.SIGKILL)
        ended = await wait_for_end(session, KILL_TIMEOUT)
        await event("killed" if ended else "error", message="process killed" if ended else "process did not end", pid=pid)
    await event("complete", exit_code=session.code if ended else -1)
    await response.write_eof()
    return response


async def wait_for_end(session, timeout):
    """True when the process is gone, whether or not its last output has been delivered."""
    exit = session.started.exit
    await asyncio.wait({exit}, timeout=timeout)
    if not exit.done() or exit.exception():
        return False
    while session.code is None:
        await asyncio.sleep(0)
    return True
