"""The control socket without a command: proxy, and files as the Go SDK asks for them."""
import asyncio
import json
import urllib.parse

import pytest

from emulator_client import until
from test_sockets import ECHO, server


async def bare(control, message):
    await control.ws.send_str(json.dumps(message))


async def files(control, operation, content=None, **args):
    await bare(control, {"type": "op.start", "op": f"fs.{operation}", "args": urllib.parse.urlencode(args)})
    if content is not None:
        await control.send(content)
    return await control.frame()


COMPLETE = {"type": "op.complete", "args": {"ok": True}}


async def test_a_proxy_in_envelopes(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with server(client, name, ECHO.format(port=8765)), client.control(name) as control:
            for _ in range(2):
                await control.start(op="proxy", id="7", host="localhost", port="8765")
                assert await control.frame() == ("control", {"type": "op.ack", "id": "7"})
                assert await control.frame() == {"status": "connected", "target": "127.0.0.1:8765"}
                await control.send(b"ping")
                assert await control.frame() == b"ping"
                await control.start("true")
                assert (await control.frame())[1]["args"]["code"] == "op.busy"
                await control.send({"type": "release"})
                assert await control.frame() == ("control", {"type": "op.complete", "id": "7", "args": {"ok": True}})
            assert (await control.run("echo", "after")).out == "after\n"
            await control.start(op="proxy", host="localhost", port="9")
            assert (await control.frame())[1]["type"] == "op.ack"
            ended = (await control.frame())[1]
            assert (ended["type"], ended["args"]["ok"]) == ("op.complete", False) and "refused" in ended["args"]["error"].lower()
            await control.start(op="proxy")
            assert [(await control.frame())[1]["type"] for _ in range(2)] == ["op.ack", "op.complete"]
            assert (await control.run("echo", "after")).out == "after\n"


async def test_a_proxy_asked_for_bare(emulator):
    async with emulator.client() as client:
        name = await client.create()
        start = {"type": "start", "operation": "proxy", "params": {"host": "localhost", "port": 8765, "keep_alive": True}}
        async with server(client, name, ECHO.format(port=8765)), client.control(name) as control:
            for _ in range(2):
                await bare(control, start)
                assert (await control.frame())["status"] == "connected"
                await control.send(b"x" * 100_000)
                got = b""
                while len(got) < 100_000:
                    got += await control.frame()
                await control.send({"type": "release"})

                async def free():
                    return (await client.run(name, "pgrep", "-fc", "inside/dial")).out == "0\n"

                await until(free)
        async with client.control(name) as control:
            await bare(control, {**start, "params": {"host": "localhost", "port": 9}})
            assert (await control.frame())["status"] == "failed"


async def test_files(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            home = "/home/sprite"
            written = await files(control, "write", b"0123456789", path="d/f", workingDir=home, mode="0600")
            assert written == {"path": "/home/sprite/d/f", "size": 10, "mode": "0600"} and await control.frame() == COMPLETE
            for args, content in (({}, b"0123456789"), ({"start": 2, "end": 4}, b"234"), ({"start": 8}, b"89")):
                assert (await files(control, "read", path="d/f", workingDir=home, **args))["size"] == len(content)
                assert await control.frame() == content and await control.frame() == COMPLETE
            for operation, args, key in (("list", {"path": "d"}, "entries"), ("copy", {"source": "d/f", "dest": "d/g"}, "copied"),
                                         ("rename", {"source": "d/g", "dest": "d/h"}, "dest"),
                                         ("chmod", {"path": "d/h", "mode": "0640"}, "affected"),
                                         ("chown", {"path": "d/h", "uid": "1000"}, "affected"),
                                         ("delete", {"path": "d", "recursive": "true"}, "deleted")):
                assert key in await files(control, operation, workingDir=home, **args), operation
                assert await control.frame() == COMPLETE
            assert (await files(control, "read", path="d/f"))["code"] == "ENOENT"
            assert (await files(control, "list"))["error"] == "path is required"
            assert (await control.run("ls")).out == ""


@pytest.mark.parametrize("message", [{"type": "op.start", "op": "fs.format", "args": ""}, {"type": "op.start", "op": "exec"},
                                     {"type": "start", "operation": "proxy", "params": "x"}, {"type": "start"}])
async def test_what_is_no_operation(emulator, message):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            await bare(control, message)
            assert (await control.frame())[1]["args"]["code"] == "op.not_active"


async def test_a_client_that_leaves_a_proxy_whose_target_does_not_read(emulator):
    async with emulator.client() as client:
        name = await client.create()
        script = "import socket, time\ns = socket.create_server(('127.0.0.1', 8765))\nprint('ready', flush=True)\nc, _ = s.accept()\ntime.sleep(60)"
        async with server(client, name, script):
            async with client.control(name) as control:
                await control.start(op="proxy", host="localhost", port="8765")
                await control.frame()
                await control.frame()

                async def flood():
                    while True:
                        await control.ws.send_bytes(b"x" * 60_000)

                flooding = asyncio.ensure_future(flood())
                await asyncio.wait({flooding}, timeout=2)
                control.reset()
                flooding.cancel()
                await asyncio.gather(flooding, return_exceptions=True)

            async def none():
                return (await client.run(name, "pgrep", "-fc", "inside/dial")).out == "0\n"

            await until(none)
