"""Routes of the Sprite's files. What they do is done inside (inside/files.py); here it is passed on.

Beyond a missing file's 404 the service's refusals are not known: forbidden things are 403,
things in the way 409, senseless ones 400. --live-fs leaves out what the live service left out.
"""
import json

from aiohttp import web

import errors
from answers import agent_answer, read_agent_json
from program import inside

CHUNK = 1 << 16
MAX_ANSWER = 64 << 20
SWITCHES = ("recursive", "preserveAttrs", "asRoot")


async def read(request, sprite):
    arguments = {**from_query(request), "range": request.headers.get("Range")}
    async with inside(sprite, "files", "read", json.dumps(arguments)) as program:
        head = parse(await program.output.readline())
        if head is None:
            raise await program.failure()
        if "body" in head:
            return refuse(sprite, head)
        return await send(request, program, head)


async def send(request, program, head):
    response = web.StreamResponse(status=head["status"], headers={
        "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"})
    left = head["length"]
    if left is not None:
        response.content_length = left
    if head["status"] == 206:
        response.headers["Content-Range"] = f"bytes {head['start']}-{head['start'] + left - 1}/{head['size']}"
    await response.prepare(request)
    while data := await program.output.read(CHUNK):
        await response.write(data)
        left = None if left is None else left - len(data)
    if left:
        raise ConnectionResetError("the file has become shorter")
    await response.write_eof()
    return response


async def write(request, sprite):
    async with inside(sprite, "files", "write", json.dumps(from_query(request)), stdin=True) as program:
        await upload(request, program)
        return await finish(sprite, program)


async def upload(request, program):
    """The body, as far as the program takes it."""
    try:
        async for data in request.content.iter_chunked(CHUNK):
            program.input.write(data)
            await program.input.drain()
        program.input.close()
    except ConnectionError:
        if not program.input.transport.is_closing():
            raise       # it is the client that has left


def by_query(operation):
    async def handler(request, sprite):
        return await operate(sprite, operation, from_query(request))
    return handler


def by_body(operation, *paths):
    async def handler(request, sprite):
        return await operate(sprite, operation, check(await read_agent_json(request), paths))
    return handler


async def operate(sprite, operation, arguments):
    async with inside(sprite, "files", operation, json.dumps(arguments)) as program:
        return await finish(sprite, program)


async def finish(sprite, program):
    result = await read_result(program)
    if result["status"] != 200:
        return refuse(sprite, result)
    body = result["body"]
    if sprite.settings.live_fs and body.get("entries") == []:
        body["entries"] = None
    return agent_answer(sprite.world.faults.damage(body, sprite.name))


async def read_result(program):
    result = parse(await read_all(program))
    if result is None:
        raise await program.failure()
    return result


async def read_all(program):
    output = bytearray()
    while (more := await program.output.read(CHUNK)) and len(output) < MAX_ANSWER:
        output += more
    return bytes(output)


def refuse(sprite, result):
    body = result["body"]
    if sprite.settings.live_fs:
        del body["code"]
    response = agent_answer(sprite.world.faults.damage(body, sprite.name), result["status"])
    if result["status"] == 416:
        response.headers["Content-Range"] = f"bytes */{result['size']}"
    return response


# -- arguments -----------------------------------------------------------------

def from_query(request):
    query = {key: value for key, value in request.query.items() if key in ("path", "workingDir", "mode", "pattern")}
    return check({**query, **switches(request.query)}, ("path",))


def switches(texts):
    return {key: texts.get(key) in ("true", "1") for key in SWITCHES}


def check(arguments, paths):
    if not isinstance(arguments, dict):
        raise refusal("invalid request body")
    for key in paths:
        if not isinstance(arguments.get(key), str) or not arguments[key]:
            raise refusal(f"{key} is required")
    if not isinstance(arguments.get("workingDir") or "", str):
        raise refusal("workingDir must be a text")
    return arguments


def refusal(text):
    return errors.Refusal(400, {"error": text, "code": "EINVAL"})


def parse(line):
    """A JSON object that is whole, or None."""
    try:
        return json.loads(line)
    except ValueError:
        return None


ROUTES = (
    ("GET", "/fs/read", read),
    ("PUT", "/fs/write", write),
    ("GET", "/fs/list", by_query("list")),
    ("DELETE", "/fs/delete", by_query("delete")),
    ("POST", "/fs/rename", by_body("rename", "source", "dest")),
    ("POST", "/fs/copy", by_body("copy", "source", "dest")),
    ("POST", "/fs/chmod", by_body("chmod", "path")),
    ("POST", "/fs/chown", by_body("chown", "path")),
)
