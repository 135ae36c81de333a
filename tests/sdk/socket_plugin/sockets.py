"""A Datasette plugin with a WebSocket, as plugins must make one: Datasette itself routes only requests."""
import json

from datasette import hookimpl


async def socket(scope, receive, send):
    """Tells what it knows of the opening, says everything again, closes when it is told to; /refused is refused."""
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"].endswith("/refused"):
        await send({"type": "websocket.close"})
        return
    protocol = next(iter(scope["subprotocols"]), None)
    await send({"type": "websocket.accept", "subprotocol": protocol, "headers": [(b"set-cookie", b"a=1"), (b"x-plugin", b"sockets")]})
    await send({"type": "websocket.send", "text": json.dumps({
        "scheme": scope["scheme"], "raw_path": scope["raw_path"].decode(), "query": scope["query_string"].decode(), "client": scope["client"][0],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]})})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "as told"})
            return
        await send({**message, "type": "websocket.send"})


@hookimpl
def asgi_wrapper(datasette):
    def wrap(app):
        async def wrapped(scope, receive, send):
            ours = scope["type"] == "websocket" and scope["path"].startswith("/-/socket/")
            await (socket if ours else app)(scope, receive, send)
        return wrapped
    return wrap
