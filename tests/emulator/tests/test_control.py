"""The control socket: envelopes, one operation at a time, reuse."""
import asyncio

import pytest

from emulator_client import Emulator, until


def shapes(result):
    """The frames without what differs from run to run."""
    return [("control", frame[1]) if isinstance(frame, tuple) else frame["type"] if isinstance(frame, dict) else frame
            for frame in result.frames]


async def test_the_transcript_of_a_command_and_reuse(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            assert control.ws._response.headers["Sprite-Version"]
            await control.start("sh", "-c", "cat; exit 3", path="sh", stdin="true")
            await control.send(b"\0abc")
            await control.send(b"\4")
            assert shapes(await control.result()) == [
                ("control", {"type": "op.ack", "id": ""}), "debug", "session_info", b"\x01abc", "exit", b"\x03\x03",
                ("control", {"type": "op.complete", "id": "", "args": {"ok": True, "exitCode": 3}})]
            for n in range(20):
                await control.start("echo", str(n), id=f"op-{n}")
                assert shapes(await control.result()) == [
                    ("control", {"type": "op.ack", "id": f"op-{n}"}), "debug", "session_info", f"\x01{n}\n".encode(),
                    "exit", b"\x03\x00",
                    ("control", {"type": "op.complete", "id": f"op-{n}", "args": {"ok": True, "exitCode": 0}})]


async def test_live_leaves_the_exit_code_out_of_the_envelope():
    with Emulator("--live-op-complete") as emulator:
        async with emulator.client() as client:
            async with client.control(await client.create()) as control:
                result = await control.run("false")
                assert (result.code, result.envelopes[-1]["args"]) == (1, {"ok": True})


async def test_one_operation_at_a_time(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            await control.start("sh", "-c", "read line; echo $line", stdin="true")
            await control.frames_until(lambda frame: isinstance(frame, dict) and frame["type"] == "session_info")
            await control.start("true", id="second")
            refused = (await control.result()).envelopes
            assert refused == [{"type": "op.error", "id": "second", "op": "exec",
                                "args": {"code": "op.busy", "message": refused[0]["args"]["message"],
                                         "error": refused[0]["args"]["message"]}}]
            await control.send(b"\0goes on\n")
            assert (await control.result()).out == "goes on\n"


async def test_errors_of_an_idle_socket(emulator):
    async with emulator.client() as client:
        async with client.control(await client.create()) as control:
            await control.start("true", op="nope", id="1")
            [error] = (await control.result()).envelopes
            assert (error["type"], error["id"], error["op"], error["args"]["code"]) == ("op.error", "1", "nope", "op.not_found")
            for send in (control.send(b"\0x"), control.send({"type": "release"}), control.envelope("{bad json")):
                await send
                [error] = (await control.result()).envelopes
                assert (error["type"], error["args"]["code"]) == ("op.error", "op.not_active")
            for silent in (control.envelope({"type": "op.start", "op": ""}), control.envelope({"type": "op.what"}),
                           control.send({"type": "keepalive"}), control.send(b"\4")):
                await silent
            assert (await control.run("echo", "alive")).out == "alive\n"


async def test_a_command_that_cannot_start(emulator):
    async with emulator.client() as client:
        async with client.control(await client.create()) as control:
            for args in ({"cmd": ["no-such-program"]}, {}, {"cmd": []}, {"cmd": [5]}, {"id": "31337"},
                         {"cmd": ["true"], "max_run_after_disconnect": "soon"}, "words"):
                await control.envelope({"type": "op.start", "op": "exec", "args": args})
                result = await control.result()
                assert [frame["type"] for frame in result.frames if isinstance(frame, dict)] == ["error", "exit"]
                assert result.code == 127
                assert result.envelopes[-1]["type"] == "op.complete" and result.envelopes[-1]["args"]["ok"] is False
            assert (await control.run("true")).code == 0


async def test_only_texts_are_read_from_arguments(emulator):
    async with emulator.client() as client:
        async with client.control(await client.create()) as control:
            result = await control.run("tty", tty=True, rows=10, dir=["/tmp"], env=["A=1", 2])
            assert result.out == "not a tty\n"
            assert sorted((await control.run("env", env=["A=1", 2])).out.split()) == ["A=1", "HOME=/home/sprite"]


async def test_a_terminal(emulator):
    async with emulator.client() as client:
        async with client.control(await client.create()) as control:
            result = await control.run("sh", "-c", "stty size; exit 7", tty="true")
            assert (result.raw, result.texts("exit")[0]["exit_code"]) == (b"24 80\r\n", 7)
            assert result.envelopes[-1]["args"]["exitCode"] == 7


async def test_signals(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            await control.start("sh", "-c", "echo ready; sleep 60 & wait", stdin="true")
            await control.until_output(b"ready")
            for _ in range(60):         # input that nobody reads does not stand in the way
                await control.send(b"\0" + b"x" * 32768)
            await control.send({"type": "signal", "signal": "KILL"})
            assert (await control.result()).code == 137
        await client.until_none(name, "sleep")


async def test_input_that_was_never_taken_is_counted(emulator):
    async with emulator.client() as client:
        async with client.control(await client.create()) as control:
            # the child keeps the pipe open, so that nothing of it is lost before the end
            await control.start("sh", "-c", "exec 3<&0; setsid sh -c 'echo ready; exec sleep 60 >&- 2>&-' <&3 & wait", stdin="true")
            await control.until_output(b"ready")
            for _ in range(60):
                await control.send(b"\0" + b"x" * 32768)
            await control.send({"type": "signal", "signal": "KILL"})
            result = await control.result()
            assert (result.code, result.envelopes[-1]["args"]["dropped"] > 0) == (137, True)


async def test_a_client_that_leaves_amid_input_is_noticed(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            await control.start("sleep", "600", stdin="true", max_run_after_disconnect="50ms")
            sending = asyncio.ensure_future(asyncio.gather(*(control.send(b"\0" + b"x" * 65536) for _ in range(200))))
            await control.frames_until(lambda frame: isinstance(frame, dict) and frame["type"] == "session_info")
            control.reset()
            await asyncio.gather(sending, return_exceptions=True)

        async def ended():
            return (await client.call("GET", f"/v1/sprites/{name}/exec")).json["count"] == 0

        await until(ended)


async def test_frames_do_not_leak_into_the_next_operation(emulator):
    async with emulator.client() as client:
        async with client.control(await client.create()) as control:
            await control.start("true", stdin="true")
            for _ in range(5):
                await control.send(b"\0old")
            await control.result()
            await control.start("cat", stdin="true")
            await control.send(b"\0new")
            await control.send(b"\4")
            result = await control.result()
            while result.envelopes[-1]["type"] == "op.error":       # frames that came after the first had ended
                assert result.envelopes[-1]["args"]["code"] == "op.not_active"
                result = await control.result()
            assert result.out == "new"


async def test_large_commands(emulator):
    async with emulator.client() as client:
        async with client.control(await client.create()) as control:
            words = ["x" * 100_000] * 8
            assert (await control.run("sh", "-c", 'echo "$*" | wc -c', "sh", *words)).out == f"{8 * 100_001}\n"


async def test_several_sockets_run_at_once(emulator):
    async with emulator.client() as client:
        name = await client.create()

        async def one(n):
            async with client.control(name) as control:
                return [(await control.run("sh", "-c", f"echo {n}.{i}")).out for i in range(5)]

        outputs = await asyncio.gather(*(one(n) for n in range(10)))
        assert outputs == [[f"{n}.{i}\n" for i in range(5)] for n in range(10)]


async def test_an_operation_in_the_url_starts_at_once(emulator):
    async with emulator.client() as client:
        name = await client.create()
        from emulator_client import Control
        async with client.session.ws_connect(f"/v1/sprites/{name}/control?op=exec&cmd=echo&cmd=hi") as ws:
            control = Control(ws)
            assert (await control.result()).out == "hi\n"
            assert (await control.run("echo", "again")).out == "again\n"


async def test_attaching_and_letting_go(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as first, client.control(name) as second:
            await first.start("sh", "-c", "echo ready; read line; echo $line", stdin="true", max_run_after_disconnect="0")
            ready = await first.until_output(b"ready\n")
            id = ready.texts("session_info")[0]["session_id"]
            await first.send({"type": "release"})
            await first.result()
            assert (await first.run("echo", "free")).out == "free\n"
            await second.envelope({"type": "op.start", "op": "exec", "args": {"id": id, "cmd": [""], "path": ""}})
            await second.until_output(b"ready\n")
            await second.send(b"\0bye\n")
            result = await second.result()
            assert (result.out, result.code) == ("bye\n", 0)


async def test_a_lost_socket_leaves_its_command_to_the_grace_period(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            await control.start("sh", "-c", "echo ready; sleep 60", max_run_after_disconnect="800ms")
            await control.until_output(b"ready")
            control.reset()

        async def count(wanted):
            return (await client.call("GET", f"/v1/sprites/{name}/exec")).json["count"] == wanted

        assert await count(1)
        await until(lambda: count(0))
        await client.until_none(name, "sleep")


async def test_a_client_that_leaves_at_once_never_hides_a_start(emulator):
    async with emulator.client() as client:
        name = await client.create()
        before = (await client.state())["started"]
        for n in range(60):
            async with client.control(name) as control:
                await control.start("sh", "-c", "echo >> ~/ran")
                await asyncio.sleep(n % 12 * 0.0001)
                control.ws._response.connection.transport.abort()

        tries = []

        async def settled():
            tries.append(None)
            ran = int((await client.shell(name, "touch ~/ran; wc -l < ~/ran")).out)
            return ran == (await client.state())["started"] - before - len(tries)

        await until(settled)


@pytest.mark.parametrize("where", ["env", "argv", "script"])
async def test_starts_are_counted_by_exec_id(emulator, where):
    async with emulator.client() as client:
        name = await client.create()
        id = f"0193-{where}"
        cmd, env = {"env": (["true"], [f"SPRITEGATE_EXEC_ID={id}", "A=1"]),
                    "argv": (["env", f"SPRITEGATE_EXEC_ID={id}", "true"], []),
                    "script": (["sh", "-c", f"export SPRITEGATE_EXEC_ID='{id}'; true"], [])}[where]
        before = await client.state()
        async with client.control(name) as control:
            for _ in range(2):
                assert (await control.run(*cmd, env=env)).code == 0
            await control.run("true")
        state = await client.state()
        assert state["starts"][id] == 2
        assert state["started"] == before["started"] + 3
