"""WebSockets that carry no command: a TCP connection into the Sprite, its ports, changes of its files."""
import asyncio
import contextlib
import json

from aiohttp import WSMsgType

from exec_ws import Channel, open_socket, parse
from program import inside

FIRST = 10              # seconds for the message that says what is wanted
LINGER = 3              # seconds for a target to take what a client has left behind
CHUNK = 32768
BAD_MESSAGE, FAILED = 1003, 1011


async def first_message(ws):
    """A JSON object, or None."""
    try:
        message = await ws.receive(timeout=FIRST)
    except TimeoutError:
        return None
    return parse(message.data) if message.type is WSMsgType.TEXT else None


async def race(*coroutines):
    """Until one of them is done."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- proxy ---------------------------------------------------------------------

async def proxy(request, sprite):
    ws = await open_socket(request)
    target = read_target(await first_message(ws))
    if target is None:
        await ws.close(code=BAD_MESSAGE, message=b"invalid init message")
        return ws
    async with inside(sprite, "dial", *target, stdin=True) as program:
        head = parse((await program.output.readline()).decode())
        if head is None:
            raise await program.failure()
        if head["status"] != "connected":
            await ws.close(code=FAILED, message=head["error"].encode()[:120])
            return ws
        await ws.send_str(json.dumps(head))
        await race(inward(ws, program, Channel(ws, request, sprite)), outward(ws, program))
        await ws.close(code=1000)
    return ws


def read_target(message):
    host, port = (message or {}).get("host") or "localhost", (message or {}).get("port")
    if isinstance(port, str) and port.isdecimal():
        port = int(port)
    if not isinstance(host, str) or "\0" in host or type(port) is not int or not 0 < port < 65536:
        return None
    return host, str(port)


async def inward(ws, program, channel):
    """Until the client closes, which is the end of what it sends: the target may still take it all."""
    try:
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                program.input.write(message.data)
                await drain(program, channel)
        program.input.close()
    except ConnectionError:
        pass
    await asyncio.sleep(LINGER)


async def drain(program, channel):
    """Waits for a slow target; not for one that takes nothing while nobody is left to wait."""
    while True:
        try:
            return await asyncio.wait_for(program.input.drain(), LINGER)
        except TimeoutError:
            if channel.left():
                raise ConnectionResetError("the client has left") from None


async def outward(ws, program):
    while data := await program.output.read(CHUNK):
        with contextlib.suppress(ConnectionError):
            await ws.send_bytes(data)


# -- streams of events ---------------------------------------------------------

async def watch_ports(request, sprite):
    ws = await open_socket(request)
    await report(ws, inside(sprite, "ports"))
    return ws


async def watch_files(request, sprite):
    ws = await open_socket(request)
    message = await first_message(ws) or {}
    paths = message.get("paths")
    if message.get("type") != "subscribe" or not isinstance(paths, list) or not paths \
            or not all(isinstance(path, str) and path and "\0" not in path for path in paths) \
            or not isinstance(message.get("workingDir") or "", str):
        await ws.send_str(json.dumps({"type": "error", "message": "subscribe with paths is expected"}))
        await ws.close(code=BAD_MESSAGE)
        return ws
    arguments = {"paths": paths, "workingDir": message.get("workingDir"), "recursive": message.get("recursive") is True}
    await report(ws, inside(sprite, "watch", json.dumps(arguments)))
    return ws


async def report(ws, program):
    """Each line of the program is a message, until it ends or the client leaves."""
    async with program:
        await race(lines(ws, program), silence(ws))
    await ws.close(code=1000)


async def lines(ws, program):
    while line := await program.output.readline():
        await ws.send_str(line.decode().rstrip("\n"))


async def silence(ws):
    async for _ in ws:
        pass


ROUTES = (
    ("GET", "/proxy", proxy),
    ("GET", "/ports/watch", watch_ports),
    ("GET", "/fs/watch", watch_files),
)
