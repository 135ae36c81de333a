"""A Datasette plugin that shows what a proxy may change: it echoes requests and answers in awkward ways, below /-/wire/."""
import asyncio
import gzip
import hashlib
import time
import urllib.parse

from datasette import Response, hookimpl

gates = {}


async def start(send, fields=(), status=200):
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def piece(send, data, more=True):
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def echo(request, scope, receive):
    """All that Datasette knows of the request."""
    body, more = hashlib.sha256(), True
    size = 0
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        body.update(message["body"])
        size += len(message["body"])
        more = message["more_body"]
    return Response.json({
        "method": scope["method"], "raw_path": scope["raw_path"].decode("latin-1"), "query": scope["query_string"].decode("latin-1"),
        "scheme": scope["scheme"], "client": scope["client"][0],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "size": size, "sha256": body.hexdigest()})


async def events(request, send):
    """Server-sent events as datasette-agent sends them: `count` of them, `gap` seconds apart."""
    await start(send, [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("Content-Encoding", "none"), ("X-Accel-Buffering", "no")])
    for i in range(int(request.args.get("count", 5))):
        await piece(send, b"event: turn\ndata: {\"n\": %d}\n\n" % i)
        await asyncio.sleep(float(request.args.get("gap", 0)))
    await piece(send, b"event: done\ndata: {}\n\n", more=False)


async def crash(request, send):
    """Fails after `pieces` pieces of `size` bytes."""
    pieces, size = int(request.args.get("pieces", 3)), int(request.args.get("size", 100))
    fields = [("Content-Type", "text/plain")]
    if request.args.get("length"):
        fields.append(("Content-Length", str(pieces * size + 1)))
    if request.args.get("early"):
        raise RuntimeError("before the answer")
    await start(send, fields)
    for i in range(pieces):
        await piece(send, bytes([65 + i % 26]) * size)
        await asyncio.sleep(float(request.args.get("gap", 0)))
    raise RuntimeError("in the middle of the answer")


async def cookies(send):
    await start(send, [("Content-Type", "text/plain"), ("Set-Cookie", "first=1; Path=/; HttpOnly"), ("set-cookie", "second=\"two\"; SameSite=lax"),
                       ("Set-Cookie", "third=; Max-Age=0; Path=/"), ("SET-COOKIE", "fourth=a,b;c")])
    await piece(send, b"cookies", more=False)


async def fields(send):
    """Fields in every spelling, twice, empty, long, beyond ASCII, and those that proxies like to change."""
    await start(send, [
        ("Content-Type", "text/plain"), ("X-Empty", ""), ("x-lower", "1"), ("X-UPPER", "2"), ("X-Many", "b"), ("X-Between", "x"), ("X-Many", "a"),
        ("X-Long", "v" * 20_000), ("X-Latin", "caf\xe9"), ("X-List", "a, b,c ,, d"), ("X-Quoted", "\"a;b\""), ("X-Tab", "a\tb"), ("Server", "someone else"),
        ("Via", "1.1 inner"), ("Age", "3"), ("Warning", "199 - \"x\""), ("Accept-Ranges", "none"),
        ("Strict-Transport-Security", "max-age=1"), ("Location", "//evil.example/"), ("Refresh", "0; url=/x"), ("WWW-Authenticate", "Basic realm=\"a\", Bearer"),
        ("Content-Location", "/other"), ("ETag", "W/\"weak\""), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"), ("Vary", "*"), ("Expires", "0"),
        ("Pragma", "no-cache"), ("Link", "</a>; rel=preload"), ("link", "</b>; rel=next"), ("Content-Security-Policy", "default-src 'none'"),
        ("Server-Timing", "db;dur=1"), ("Retry-After", "1"), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")])
    await piece(send, b"fields", more=False)


async def sized(request, send):
    """/-/wire/size/N: N bytes; ?framing=chunked (the default), length; ?pieces=; ?status=."""
    size = int(request.url_vars["size"])
    pieces = int(request.args.get("pieces", 1))
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    fields = [("Content-Type", "application/octet-stream")]
    if request.args.get("framing") == "length":
        fields.append(("Content-Length", str(size)))
    await start(send, fields, int(request.args.get("status", 200)))
    step = -(-size // pieces) or 1
    for begin in range(0, size, step):
        await piece(send, body[begin:begin + step])
    await piece(send, b"", more=False)


async def status(request, send):
    number = int(request.url_vars["status"])
    await start(send, [("X-Status", str(number))], number)
    await piece(send, b"" if number in (204, 205, 304) else b"status %d" % number, more=False)


async def gate(request, send):
    """Half of an answer; the other half when /-/wire/open?name= was asked."""
    opened = gates.setdefault(request.args["name"], asyncio.Event())
    await start(send, [("Content-Type", request.args.get("type", "text/csv"))])
    await piece(send, b"first half\n")
    await opened.wait()
    await piece(send, b"second half\n", more=False)


async def open_gate(request):
    gates.setdefault(request.args["name"], asyncio.Event()).set()
    return Response.text("open")


async def form(request):
    """What a form of any size holds."""
    found = []
    async with await request.form(files=True) as data:
        for name, value in data.items():
            if isinstance(value, str):
                found.append([name, value])
                continue
            whole = hashlib.sha256()
            while block := await value.read(1 << 20):
                whole.update(block)
            found.append([name, value.filename, value.content_type, value.size, whole.hexdigest()])
    return Response.json(found)


async def packed(request, send):
    """Of a coding, of one that nobody knows, and what only claims to be."""
    coding = request.args["coding"]
    body = gzip.compress(b"a page " * 1000, mtime=0)
    await start(send, [("Content-Type", "text/html"), ("Content-Encoding", coding), ("Content-Length", str(len(body)))])
    await piece(send, body, more=False)


async def refuse(request):
    """An answer before the body is read."""
    return Response.text("not here", status=403)


async def late(request):
    await asyncio.sleep(float(request.args["seconds"]))
    return Response.text("late")


async def busy(request):
    """Nothing else happens meanwhile, as when a large page is made."""
    time.sleep(0.05)
    return Response.text("done")


@hookimpl
def asgi_wrapper():
    """An answer of Datasette itself that stops after ?_wire_pieces= pieces, until /-/wire/open?name=_wire_gate was asked."""
    def wrap(app):
        async def stopping(scope, receive, send):
            args = dict(urllib.parse.parse_qsl(scope.get("query_string", b"").decode("latin-1")))
            left = int(args.get("_wire_pieces", 0))

            async def counting(message):
                nonlocal left
                await send(message)
                left -= message["type"] == "http.response.body"
                if left == 0 and message.get("more_body"):
                    await gates.setdefault(args["_wire_gate"], asyncio.Event()).wait()

            await app(scope, receive, counting if left else send)
        return stopping
    return wrap


@hookimpl
def register_routes():
    return [(rf"^/-/wire/{path}$", view) for path, view in (
        ("echo.*", echo), ("events", events), ("crash", crash), ("cookies", cookies), ("fields", fields), (r"size/(?P<size>\d+)", sized),
        (r"status/(?P<status>\d+)", status), ("gate", gate), ("packed", packed), ("open", open_gate), ("form", form), ("refuse", refuse), ("late", late), ("busy", busy))]
