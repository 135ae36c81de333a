"""Sockets without a command: TCP into a Sprite, its ports, changes of its files."""
import asyncio
import contextlib
import json
import socket

import aiohttp
import pytest

from emulator_client import PATIENCE, Socket, until

ECHO = ("import socket\ns = socket.create_server(('127.0.0.1', {port}))\nprint('ready', flush=True)\n"
        "while True:\n  c, _ = s.accept()\n  while d := c.recv(65536): c.sendall(d)\n  c.close()\n")


@contextlib.asynccontextmanager
async def server(client, name, script):
    async with client.exec(name, "python3", "-c", script) as ws:
        await ws.until_output(b"ready")
        yield ws


@contextlib.asynccontextmanager
async def connect(client, name, path, first=None):
    async with client.session.ws_connect(f"/v1/sprites/{name}/{path}") as ws:
        if first is not None:
            await ws.send_str(first if isinstance(first, str) else json.dumps(first))
        yield ws


async def receive(ws):
    return await ws.receive_json(timeout=PATIENCE)


# -- proxy ---------------------------------------------------------------------------

async def test_bytes_go_both_ways(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with server(client, name, ECHO.format(port=8765)):
            async with connect(client, name, "proxy", {"host": "localhost", "port": 8765}) as ws:
                assert await receive(ws) == {"status": "connected", "target": "127.0.0.1:8765"}
                data = bytes(range(256)) * 8000
                sending = asyncio.ensure_future(ws.send_bytes(data))
                got = b""
                while len(got) < len(data):
                    got += await ws.receive_bytes(timeout=PATIENCE)
                await sending
                assert got == data
            async with connect(client, name, "proxy", {"host": "127.0.0.1", "port": "8765"}) as ws:
                assert (await receive(ws))["status"] == "connected"       # a new one each time; numbers may be texts

        async def none():
            return (await client.run(name, "pgrep", "-fc", "inside/dial")).out == "0\n"

        await until(none)


async def test_what_a_client_sent_before_it_closed_arrives(emulator):
    async with emulator.client() as client:
        name = await client.create()
        script = ("import socket, time\ns = socket.create_server(('127.0.0.1', 8765))\nprint('ready', flush=True)\nc, _ = s.accept()\n"
                  "n = 0\nwhile d := c.recv(65536): n += len(d); time.sleep(0.01)\nopen('count', 'w').write(str(n))\n")
        async with server(client, name, script):
            async with connect(client, name, "proxy", {"port": 8765}) as ws:
                await receive(ws)
                for _ in range(300):
                    await ws.send_bytes(b"x" * 50_000)

            async def all_of_it():
                return (await client.run(name, "cat", "count")).out == "15000000"

            await until(all_of_it)


async def test_a_client_that_leaves_a_target_that_does_not_read(emulator):
    async with emulator.client() as client:
        name = await client.create()
        script = "import socket, time\ns = socket.create_server(('127.0.0.1', 8765))\nprint('ready', flush=True)\nc, _ = s.accept()\ntime.sleep(60)"
        async with server(client, name, script):
            async with connect(client, name, "proxy", {"port": 8765}) as ws:
                await receive(ws)

                async def flood():
                    while True:
                        await ws.send_bytes(b"x" * 60_000)

                flooding = asyncio.ensure_future(flood())
                await asyncio.wait({flooding}, timeout=2)
                flooding.cancel()
                await asyncio.gather(flooding, return_exceptions=True)
                Socket(ws).reset()

            async def none():
                return (await client.run(name, "pgrep", "-fc", "inside/dial")).out == "0\n"

            await until(none)


async def test_the_end_of_a_connection_closes_the_socket(emulator):
    async with emulator.client() as client:
        name = await client.create()
        script = ("import socket\ns = socket.create_server(('127.0.0.1', 80 * 100))\nprint('ready', flush=True)\n"
                  "c, _ = s.accept(); c.sendall(b'bye'); c.close()")
        async with server(client, name, script), connect(client, name, "proxy", {"port": 8000}) as ws:
            await receive(ws)
            assert await ws.receive_bytes(timeout=PATIENCE) == b"bye"
            assert (await ws.receive(timeout=PATIENCE)).type is aiohttp.WSMsgType.CLOSE and ws.close_code == 1000


@pytest.mark.parametrize("first", ["nonsense", "[]", "{}", '{"host": 7, "port": 80}', '{"host": "x", "port": 0}',
                                   '{"host": "x", "port": true}', '{"host": "a\\u0000", "port": 80}', '{"port": "8o"}'])
async def test_a_bad_first_message(emulator, first):
    async with emulator.client() as client:
        name = await client.create()
        async with connect(client, name, "proxy", first) as ws:
            await ws.receive(timeout=PATIENCE)
            assert ws.close_code == 1003


async def test_nobody_listens(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with connect(client, name, "proxy", {"host": "localhost", "port": 9}) as ws:
            message = await ws.receive(timeout=PATIENCE)
            assert ws.close_code == 1011 and "refused" in message.extra.lower()


async def test_the_machine_itself_cannot_be_reached(emulator):
    async with emulator.client() as client:
        name = await client.create()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with connect(client, name, "proxy", {"host": "127.0.0.1", "port": listener.getsockname()[1]}) as ws:
                await ws.receive(timeout=PATIENCE)
                assert ws.close_code == 1011


async def test_a_pause_cuts_it(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with server(client, name, ECHO.format(port=8765)):
            async with connect(client, name, "proxy", {"port": 8765}) as ws:
                await receive(ws)
                await client.pause(name)
                await ws.receive(timeout=PATIENCE)
                assert ws.close_code in (None, 1006)


# -- ports ---------------------------------------------------------------------------

async def test_ports_are_told(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with server(client, name, ECHO.format(port=7001)), connect(client, name, "ports/watch") as ws:
            first = await receive(ws)
            (port,) = first["ports"]
            assert (first["type"], port["port"], port["address"]) == ("port_list", 7001, "127.0.0.1")
            assert (await client.run(name, "cat", f"/proc/{port['pid']}/comm")).out == "python3\n"
            script = "import socket, sys\ns = socket.create_server(('::', 7002), family=socket.AF_INET6)\nprint('ready', flush=True)\nsys.stdin.read()"
            async with client.exec(name, "python3", "-c", script, stdin="true") as program:
                opened = await receive(ws)
                assert (opened["type"], opened["port"], opened["address"]) == ("port_opened", 7002, "::")
                await program.send(b"\4")
                closed = await receive(ws)
                assert closed == {**opened, "type": "port_closed"}


async def test_sockets_of_commands_are_told_of_ports(emulator):
    async with emulator.client() as client:
        name, other = await client.create(), await client.create()
        async with client.exec(name, "sleep", "600") as ws, client.exec(other, "sleep", "600") as stranger, client.control(name) as control:
            await control.start("sleep", "600", id="a")
            async with client.exec(name, "python3", "-c", ECHO.format(port=7003)) as own:
                (opened,) = (await own.frames_until(is_port)).texts("port_opened")
                assert list(opened) == ["type", "port", "address", "pid"]
                assert (opened["port"], opened["address"]) == (7003, "127.0.0.1")
                assert (await client.run(name, "cat", f"/proc/{opened['pid']}/comm")).out == "python3\n"
                await own.send({"type": "signal", "signal": "KILL"})
                ended = await own.result()
                assert ended.frames[-1] == b"\3\x89" and ended.frames[-2] == {"type": "exit", "exit_code": 137}
            for socket in (ws, control):
                assert (await socket.frames_until(is_port)).frames[-1] == opened
                assert (await socket.frames_until(is_port)).frames[-1] == {**opened, "type": "port_closed"}
            await stranger.send({"type": "signal", "signal": "TERM"})
            told = await stranger.result()
            assert told.code == 143 and not [frame for frame in told.frames if is_port(frame)]
            for socket in (ws, control):
                await socket.send({"type": "signal", "signal": "TERM"})
                assert not [frame for frame in (await socket.result()).frames if is_port(frame)]

        async def none():
            return (await client.run(name, "pgrep", "-fc", "inside/ports")).out == "0\n"

        await until(none)


def is_port(frame):
    return isinstance(frame, dict) and frame["type"] in ("port_opened", "port_closed")


# -- files ---------------------------------------------------------------------------

async def test_changes_of_files_are_told(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "mkdir -p d/sub")
        wanted = {"type": "subscribe", "paths": ["d"], "recursive": True, "workingDir": "/home/sprite"}
        async with connect(client, name, "fs/watch", wanted) as ws:
            assert await receive(ws) == {"type": "subscribed", "paths": ["/home/sprite/d"]}
            await client.shell(name, "cd d; mkdir new; sleep 0.3; echo 123 > new/f; chmod 750 sub; mv new/f sub/g; rm sub/g")
            seen = []
            while ("remove", "sub/g") not in seen:
                event = await receive(ws)
                assert (event["type"], event["timestamp"][-1]) == ("event", "Z")
                seen.append((event["event"], event["path"].removeprefix("/home/sprite/d/")))
                if seen[-1] == ("write", "new/f"):
                    assert event["isDir"] is False
            for expected in (("create", "new"), ("create", "new/f"), ("write", "new/f"), ("chmod", "sub"), ("rename", "new/f"),
                             ("create", "sub/g")):
                assert expected in seen


async def test_only_the_folder_itself_when_not_recursive(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "mkdir -p d/sub")
        async with connect(client, name, "fs/watch", {"type": "subscribe", "paths": ["d"], "workingDir": "/home/sprite"}) as ws:
            await receive(ws)
            await client.shell(name, "touch d/sub/deep d/near")
            assert (await receive(ws))["path"] == "/home/sprite/d/near"


@pytest.mark.parametrize("first", ["x", "{}", '{"type": "subscribe"}', '{"type": "subscribe", "paths": []}',
                                   '{"type": "subscribe", "paths": [7]}', '{"type": "subscribe", "paths": ["a\\u0000"]}'])
async def test_a_bad_subscription(emulator, first):
    async with emulator.client() as client:
        name = await client.create()
        async with connect(client, name, "fs/watch", first) as ws:
            assert (await receive(ws))["type"] == "error"
            await ws.receive(timeout=PATIENCE)
            assert ws.close_code == 1003


async def test_a_path_that_cannot_be_watched(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with connect(client, name, "fs/watch", {"type": "subscribe", "paths": ["/nope"]}) as ws:
            assert await receive(ws) == {"type": "error", "path": "/nope", "message": "watch /nope: no such file or directory"}
