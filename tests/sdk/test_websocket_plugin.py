"""A WebSocket of a plugin in a real Datasette, through a gateway, spoken by the field's client; Datasette by http and by https."""
import asyncio
import contextlib
import json
import secrets
import sys

import pytest
import websockets
from websockets.asyncio.client import connect

import rig
from certificates import certificate
from wire import CutOff, Wire

PLUGIN = rig.TOP / "tests/sdk/socket_plugin"
LARGE = secrets.token_bytes(3 << 20)


@pytest.fixture(scope="module", params=["http", "https"])
def gateway(request, tmp_path_factory):
    ours = certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")
    with contextlib.ExitStack() as stack:
        tls = ("--ssl-certfile", ours.certificate, "--ssl-keyfile", ours.key) if request.param == "https" else ()
        port = rig.free_port()
        datasette = rig.Part("datasette", [sys.executable, "-m", "datasette", "serve", "--memory", "-h", "127.0.0.1", "-p", port,
                                           "--plugins-dir", PLUGIN, *tls])
        stack.callback(datasette.kill)
        store = rig.Redis()
        stack.callback(store.kill)
        gateway = rig.OwnGateway({
            "datasette_url": f"{request.param}://127.0.0.1:{port}", "datasette_ca_file": ours.certificate, "redis_url": store.url,
            "sprites_url": "http://127.0.0.1:1", "sprites_token": "none", "pepper": "pepper of the tests of WebSocket", "pool_hot": 0,
            "redis_timeout_ms": rig.PATIENT_REDIS_MS, "max_websockets": 100, "workers": 1, "trusted_proxies": "127.0.0.0/8"})
        stack.callback(gateway.stop_at_once)
        datasette.until_up(lambda: gateway.get("/-/versions.json").status_code == 200)
        yield gateway


def talk(gateway, conversation, path="/-/socket/a%20b?q=~41", **options):
    async def run():
        options.setdefault("origin", gateway.url)
        async with asyncio.timeout(120), connect(f"ws{gateway.url[4:]}{path}", proxy=None, max_size=None, **options) as client:
            return await conversation(client, json.loads(await client.recv()))
    return asyncio.run(run())


def until_closed(gateway):
    rig.until(lambda: gateway.metrics().get("spritegate_websockets") == 0, "no WebSocket is open")


def test_what_both_sides_know_of_the_opening(gateway):
    async def look(client, told):
        return client, told
    client, told = talk(gateway, look, subprotocols=["chat", "other"], additional_headers={
        "Cookie": "c=1", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Authorization": "Bearer sgt_x"})
    answer, headers = client.response.headers, {name: value for name, value in told["headers"]}
    assert client.subprotocol == "chat" and answer["X-Plugin"] == "sockets" and answer["Set-Cookie"] == "a=1"
    assert "permessage-deflate" in answer["Sec-WebSocket-Extensions"] and answer["X-Request-Id"] == headers["x-request-id"]
    assert told["raw_path"] == "/-/socket/a%20b" and told["query"] == "q=~41" and told["scheme"] == "wss" and told["client"] == "203.0.113.9"
    assert headers["host"] == gateway.url[7:] and headers["cookie"] == "c=1" and headers["origin"] == gateway.url
    assert headers["via"] == "1.1 spritegate" and headers["x-forwarded-for"] == "203.0.113.9"


@pytest.mark.parametrize("compression", ["deflate", None])
def test_a_conversation(gateway, compression):
    async def converse(client, _):
        for message in ("", "grüße", b"", b"\0\xff", "x" * 70_000, LARGE):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["in ", "several ", "frames"])
        assert await client.recv() == "in several frames"
        await (await client.ping(b"are you there"))
        await client.send("close")
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            await client.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as told")
    talk(gateway, converse, compression=compression)
    until_closed(gateway)


def test_many_at_once(gateway):
    async def one(number):
        async with connect(f"ws{gateway.url[4:]}/-/socket/many", proxy=None) as client:
            await client.recv()
            for turn in range(20):
                await client.send(f"{number} {turn}")
                assert await client.recv() == f"{number} {turn}"

    async def all_of_them():
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(one(number))
    asyncio.run(all_of_them())
    until_closed(gateway)


def test_one_that_is_refused(gateway):
    async def nothing(client, _):
        raise AssertionError("it was taken")
    with pytest.raises(websockets.InvalidStatus) as refused:
        talk(gateway, nothing, path="/-/socket/refused")
    assert refused.value.response.status_code == 403
    assert gateway.get("/-/versions.json").status_code == 200


def test_where_no_plugin_listens_it_is_as_without_a_gateway(gateway):
    """Datasette takes such a request for none of its own and fails; nothing hangs, and the next one is answered."""
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        assert wire.answer().status == 500
        with contextlib.suppress(CutOff):
            assert wire.ask("GET", "/-/versions.json").answer().status == 200
    assert gateway.get("/-/versions.json").status_code == 200
