"""Commands over a WebSocket of their own and over POST; sessions."""
import asyncio
import re
import time

import aiohttp
import pytest
import yarl

from emulator_client import Emulator, Socket, until


async def test_the_transcript_of_a_new_command(emulator):
    async with emulator.client() as client:
        name = await client.create("demo")
        async with client.exec(name, "echo", "hi", path="echo", stdin="false") as ws:
            headers = ws.ws._response.headers
            assert (headers["Sprite-Version"], headers["X-Sprite-Capabilities"]) == ("v0.0.1-rc46", "signal")
            assert "Sec-WebSocket-Extensions" not in headers
            await ws.send(b"\x04")
            result = await ws.result()
        debug, info, output, text_exit, frame3 = result.frames
        pid = info["session_id"]
        assert debug == {"type": "debug", "msg": "session_created cmd=echo", "pid": int(pid), "t_ms": debug["t_ms"]}
        assert info == {"type": "session_info", "session_id": pid, "command": "/usr/bin/echo hi",
                        "created": info["created"], "cols": 0, "rows": 0, "is_owner": True, "tty": False}
        assert (output, text_exit, frame3) == (b"\x01hi\n", {"type": "exit", "exit_code": 0}, b"\x03\x00")
        assert result.close == 1000


async def test_compression_is_declined(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.session.ws_connect(f"/v1/sprites/{name}/exec?cmd=true", compress=15) as ws:
            assert ws.compress == 0


async def test_the_transcript_of_a_terminal(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "bash", "--norc", path="bash", tty="true", rows="24", cols="80", stdin="true",
                               env=["PS1=$ "]) as ws:
            start = await ws.until_output(b"$ ")
            info = start.texts("session_info")[0]
            assert (info["tty"], info["rows"], info["cols"]) == (True, 24, 80)
            await ws.send({"type": "resize", "cols": 120, "rows": 40})
            await ws.send(b"stty size; tty\r")
            await ws.until_output(b"40 120\r\n/dev/pts/")
            await ws.send(b"exit 5\r")
            end = await ws.result()
        assert end.texts("exit") == [{"type": "exit", "exit_code": 5}]
        assert end.raw.endswith(b"exit 5\r\nexit\r\n") and end.close == 1000


async def test_a_terminal_prints_nothing_of_its_own(emulator):
    async with emulator.client() as client:
        name = await client.create()
        assert (await client.run(name, "echo", "tty-test", tty="true")).raw == b"tty-test\r\n"
        assert (await client.run(name, "sh", "-c", "stty size", tty="true")).raw == b"24 80\r\n"
        assert (await client.run(name, "sh", "-c", "kill -TERM $$", tty="true")).texts("exit")[0]["exit_code"] == 143
        no_terminal = await client.run(name, "tty")
        assert (no_terminal.out, no_terminal.code) == ("not a tty\n", 1)


async def test_streams_are_kept_apart_and_codes_are_told(emulator):
    async with emulator.client() as client:
        name = await client.create()
        result = await client.shell(name, "echo out; echo err >&2; exit 42")
        assert (result.out, result.err, result.code) == ("out\n", "err\n", 42)
        assert (await client.shell(name, "kill -KILL $$")).code == 137
        assert (await client.shell(name, "exit 255")).code == 255
        assert (await client.shell(name, "echo x > /dev/stdout; echo y > /dev/stderr")).err == "y\n"


async def test_the_environment_is_the_default_or_what_was_given(emulator):
    async with emulator.client() as client:
        name = await client.create(environment={"MADE": "with"})
        default = await client.run(name, "env")
        assert "HOME=/home/sprite\n" in default.out and "MADE=with\n" in default.out
        assert ("PATH=/home/sprite/.local/bin:/.sprite/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
                in default.out)
        given = await client.run(name, "env", env=["A=1", "B=x=y", "E="])
        assert sorted(given.out.split()) == ["A=1", "B=x=y", "E=", "HOME=/home/sprite"]
        assert (await client.run(name, "bash", "-lc", "echo $PATH")).out.startswith("/home/sprite/.local/bin:")


async def test_the_folder(emulator):
    async with emulator.client() as client:
        name = await client.create()
        assert (await client.run(name, "pwd")).out == "/home/sprite\n"
        assert (await client.run(name, "pwd", dir="/tmp")).out == "/tmp\n"
        assert (await client.run(name, "pwd", dir="/nowhere")).out == "/home/sprite\n"
        assert (await client.run(name, "pwd")).out == "/home/sprite\n"


async def test_arguments_arrive_as_they_are(emulator):
    async with emulator.client() as client:
        name = await client.create()
        words = ["a b", "", "ü+&=%", "*", "-n", "two\nlines"]
        assert (await client.run(name, "printf", "[%s]", *words)).out == "".join(f"[{word}]" for word in words)


async def test_the_query_of_a_command(emulator):
    """Both spellings of a space and of the list, a program that is not called by its own name, and an id that wins over a command."""
    async with emulator.client() as client:
        name = await client.create()

        async def out(query):
            async with client.session.ws_connect(yarl.URL(f"/v1/sprites/{name}/exec?{query}", encoded=True)) as ws:
                return (await Socket(ws).result()).out

        assert await out("cmd=echo&cmd=a+b%20c%2Bd") == "a b c+d\n"
        assert await out("cmd[]=echo&cmd[]=x") == "x\n"
        assert await out("cmd=other&cmd=-c&cmd=echo+$0&path=sh") == "other\n"
        assert "HOME=/home/sprite\n" in await out("path=env")
        async with client.exec(name, "sh", "-c", "echo first; read line; echo $line", stdin="true", max_run_after_disconnect="0") as first:
            id = (await first.until_output(b"first\n")).texts("session_info")[0]["session_id"]
            async with client.session.ws_connect(f"/v1/sprites/{name}/exec?id={id}&cmd=echo&cmd=never") as second:
                second = Socket(second)
                await second.until_output(b"first\n")
                await second.send(b"\0go\n")
                assert ((await second.result()).out, (await first.result()).out) == ("go\n", "go\n")


async def test_a_terminal_takes_input_unless_told_not_to(emulator):
    async with emulator.client() as client:
        name = await client.create()
        for more, told in (({}, b"got typed\r\n"), ({"stdin": "false"}, b"ready\r\n")):
            async with client.exec(name, "sh", "-c", "stty -echo; echo ready; read -r line; echo got $line", tty="true", max_run_after_disconnect="50ms", **more) as ws:
                await ws.until_output(b"ready\r\n")
                await ws.send(b"typed\r")
                if not more:
                    assert (await ws.result()).raw == told
                else:
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(ws.ws.receive(), 0.3)


async def test_stdin(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "cat", stdin="true") as ws:
            for part in (b"one", b" two"):
                await ws.send(b"\0" + part)
            await ws.send(b"\4")
            assert (await ws.result()).out == "one two"
        async with client.exec(name, "cat", stdin="false") as ws:
            await ws.send(b"\0ignored")
            await ws.send(b"\4")
            result = await ws.result()
            assert (result.out, result.code) == ("", 0)
        assert (await client.run(name, "cat")).code == 0
        assert (await client.run(name, "readlink", "/proc/self/fd/0")).out == "/dev/null\n"


async def test_stdin_larger_than_every_buffer(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "sleep 0.2; wc -c", stdin="true") as ws:
            for _ in range(80):
                await ws.send(b"\0" + b"x" * 65536)
            await ws.send(b"\4")
            assert (await ws.result()).out == f"{80 * 65536}\n"


async def test_a_process_that_does_not_read_ends_all_the_same(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "exec 0<&-; sleep 0.1; echo done", stdin="true") as ws:
            for _ in range(40):
                await ws.send(b"\0" + b"x" * 65536)
            assert (await ws.result()).out == "done\n"


async def test_large_output_arrives_whole_in_small_frames(emulator):
    async with emulator.client() as client:
        name = await client.create()
        result = await client.shell(name, "head -c 5000000 /dev/zero; head -c 300000 /dev/zero >&2")
        assert (len(result.of(1)), len(result.of(2)), result.code) == (5_000_000, 300_000, 0)
        assert max(len(frame) for frame in result.frames if isinstance(frame, bytes)) <= 32768


async def test_a_slow_client_slows_the_process(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "head -c 100000000 /dev/zero; echo > ~/over") as ws:
            await ws.frame()
            await asyncio.sleep(0.5)
            assert (await client.run(name, "test", "-e", "/home/sprite/over")).code == 1
            ws.reset()


async def test_output_of_a_fast_command_is_never_lost(emulator):
    async with emulator.client() as client:
        name = await client.create()
        results = await asyncio.gather(*(client.run(name, "echo", f"number {n}") for n in range(40)))
        assert [result.out for result in results] == [f"number {n}\n" for n in range(40)]
        big = await asyncio.gather(*(client.run(name, "head", "-c", "60000", "/dev/zero") for _ in range(10)))
        assert {len(result.of(1)) for result in big} == {60000}


async def test_a_background_child_neither_delays_nor_dies(emulator):
    async with emulator.client() as client:
        name = await client.create()
        result = await client.shell(name, "(while sleep 0.05; do echo tick; echo tick >> ~/ticks; done) & echo main")
        assert result.code == 0 and result.out.startswith("main\n")
        before = int((await client.shell(name, "wc -l < ~/ticks")).out)

        async def more_ticks():
            return int((await client.shell(name, "wc -l < ~/ticks")).out) > before + 3

        await until(more_ticks)


async def test_signals_reach_the_process_group(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.05; done") as ws:
            await ws.until_output(b"ready")
            await ws.send({"type": "signal", "signal": "NONSENSE"})
            await ws.send({"type": "unknown"})
            await ws.send({"type": "signal", "signal": "USR1"})
            result = await ws.result()
            assert (result.out, result.code) == ("got\n", 9)
        async with client.exec(name, "sh", "-c", "echo ready; sleep 60; :") as ws:
            await ws.until_output(b"ready")
            await ws.send({"type": "signal", "signal": "SIGTERM"})
            assert (await ws.result()).code == 143
        await client.until_none(name, "sleep")


async def test_a_command_that_cannot_start(emulator):
    async with emulator.client() as client:
        name = await client.create()
        for cmd in ("no-such-program", "/etc/passwd", "/"):
            result = await client.run(name, cmd)
            assert [frame["type"] for frame in result.frames if isinstance(frame, dict)] == ["error", "exit"], result.frames
            assert (result.texts("exit")[0]["exit_code"], result.code, result.close) == (127, 127, 1000)


async def test_bad_handshakes(emulator):
    async with emulator.client() as client:
        name = await client.create()
        for path, text in (("exec", "No command specified\n"), ("exec?cmd=a%00b", "a NUL byte in the command\n"),
                           ("exec?cmd=true&max_run_after_disconnect=5", None)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.session.ws_connect(f"/v1/sprites/{name}/{path}")
            assert refused.value.status == 400
        assert (await client.call("GET", f"/v1/sprites/{name}/control")).status == 400
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.session.ws_connect(f"/v1/sprites/{name}/exec/999999")
        assert refused.value.status == 404
        plain = await client.call("GET", f"/v1/sprites/{name}/exec/999999", headers={"Upgrade": "websocket"})
        assert (plain.status, plain.text) == (404, "session not found: 999999\n")
        assert plain.headers["X-Content-Type-Options"] == "nosniff" and plain.headers["Content-Type"].startswith("text/plain")


async def test_the_version_is_told(emulator):
    async with emulator.client() as client:
        name = await client.create()
        head = await client.call("HEAD", f"/v1/sprites/{name}/exec")
        assert (head.status, head.headers["Sprite-Version"]) == (200, "v0.0.1-rc46")


# -- POST -----------------------------------------------------------------------

async def test_post_runs_a_command(emulator):
    async with emulator.client() as client:
        path = f"/v1/sprites/{await client.create()}/exec"
        query = [("cmd", "sh"), ("cmd", "-c"), ("cmd", "cat; echo e >&2; exit 3"), ("stdin", "true")]
        answer = await client.call("POST", path, params=query, data=b"hello")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/octet-stream")
        assert (answer.headers["Transfer-Encoding"], answer.headers["Sprite-Version"]) == ("chunked", "v0.0.1-rc46")
        assert answer.body.endswith(b"\x03\x03") and b"\x01hello" in answer.body and b"\x02e\n" in answer.body
        unread = await client.call("POST", path + "?cmd=cat", data=b"ignored")
        assert unread.body == b"\x03\x00"


async def test_a_post_whose_client_leaves_may_run_on_for_a_while(emulator):
    async with emulator.client() as client:
        name = await client.create()
        query = [("cmd", "sh"), ("cmd", "-c"), ("cmd", "echo ready; exec sleep 61"), ("max_run_after_disconnect", "300ms")]
        async with client.session.post(f"/v1/sprites/{name}/exec", params=query) as answer:
            assert await answer.content.readexactly(7) == b"\1ready\n"
            answer.close()
        await client.until_none(name, "sleep")


async def test_post_refuses_what_needs_a_socket(emulator):
    async with emulator.client() as client:
        path = f"/v1/sprites/{await client.create()}/exec"
        for query, text in (("?cmd=true&tty=false", "TTY not supported on POST /exec\n"),
                            ("?cmd=true&id=1", "Unsupported parameters for POST /exec\n"),
                            ("?cmd=true&cc=1", "Unsupported parameters for POST /exec\n"),
                            ("", "No command specified\n")):
            answer = await client.call("POST", path + query)
            assert (answer.status, answer.text) == (400, text)
        failed = await client.call("POST", path + "?cmd=nonesuch")
        assert failed.status == 500 and failed.text.startswith("failed to start process")


# -- sessions -------------------------------------------------------------------

async def test_sessions_are_listed_while_they_run(emulator):
    async with emulator.client() as client:
        name = await client.create()
        path = f"/v1/sprites/{name}/exec"
        assert (await client.call("GET", path)).json == {"count": 0, "sessions": []}
        async with client.exec(name, "sleep", "600", dir="/tmp") as ws:
            id = (await ws.frames_until(lambda f: f["type"] == "session_info")).texts("session_info")[0]["session_id"]
            listed = (await client.call("GET", path)).json
            assert listed["count"] == 1
            session = listed["sessions"][0]
            assert (session["id"], session["command"], session["workdir"]) == (id, "/usr/bin/sleep 600", "/tmp")
            assert (session["tty"], session["is_active"]) == (False, True)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", session["created"])
            killed = await client.call("POST", f"{path}/{id}/kill?signal=TERM&timeout=5s")
            assert (killed.status, killed.headers["Content-Type"]) == (200, "application/x-ndjson")
            assert [line["type"] for line in killed.lines] == ["signal", "exited", "complete"]
            assert killed.lines[-1]["exit_code"] == 143
            assert (await ws.result()).code == 143
        again = await client.call("POST", f"{path}/{id}/kill")
        assert again.status == 410
        assert (await client.call("POST", f"{path}/424242/kill")).status == 404
        assert (await client.call("DELETE", f"{path}/{id}")).status == 404
        assert (await client.call("GET", path)).json["count"] == 0


async def test_a_kill_that_is_not_obeyed_is_enforced(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done") as ws:
            ready = await ws.until_output(b"ready")
            id = ready.texts("session_info")[0]["session_id"]
            killed = await client.call("POST", f"/v1/sprites/{name}/exec/{id}/kill?timeout=200ms")
            assert [line["type"] for line in killed.lines] == ["signal", "timeout", "killed", "complete"]
            assert killed.lines[-1]["exit_code"] == 137
            assert (await ws.result()).code == 137


async def test_the_kill_of_a_terminal_closes_it(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sleep", "600", tty="true") as ws:
            ready = await ws.frames_until(lambda frame: frame["type"] == "session_info")
            id = ready.texts("session_info")[0]["session_id"]
            killed = await client.call("POST", f"/v1/sprites/{name}/exec/{id}/kill")
            assert [line["type"] for line in killed.lines] == ["signal", "exited", "signal", "complete"]
            assert (killed.lines[-1]["exit_code"], (await ws.result()).texts("exit")[0]["exit_code"]) == (143, 143)


async def test_the_socket_lingers_after_the_exit():
    with Emulator("--exit-tail", "400ms") as emulator:
        async with emulator.client() as client:
            async with client.exec(await client.create(), "true") as ws:
                await ws.frames_until(lambda frame: frame == b"\3\0")
                before = time.monotonic()
                assert (await ws.result()).close == 1000
                assert time.monotonic() - before > 0.3


async def test_a_command_outlives_its_client_as_long_as_it_may(emulator):
    async with emulator.client() as client:
        name = await client.create()
        line = "echo ready; while :; do sleep 0.02; date +%N > ~/alive; done"
        for limit, ends in (("800ms", True), ("0", False)):
            async with client.exec(name, "sh", "-c", line, max_run_after_disconnect=limit) as ws:
                await ws.until_output(b"ready")
    
            async def count():
                return (await client.call("GET", f"/v1/sprites/{name}/exec")).json["count"]

            async def none():
                return await count() == 0

            if ends:
                assert await count() == 1
                await until(none)
            else:
                await asyncio.sleep(1)
                sessions = (await client.call("GET", f"/v1/sprites/{name}/exec")).json["sessions"]
                assert [session["is_active"] for session in sessions] == [False]


async def test_attaching_replays_and_goes_on(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "echo first; read line; echo second $line", stdin="true") as ws:
            id = (await ws.until_output(b"first")).texts("session_info")[0]["session_id"]
        async with client.session.ws_connect(f"/v1/sprites/{name}/exec/{id}") as ws:
            ws = Socket(ws)
            info = await ws.frame()
            assert (info["type"], info["session_id"], info["is_owner"]) == ("session_info", id, False)
            await ws.until_output(b"first\n")
            await ws.send(b"\0line\n")
            result = await ws.result()
            assert (result.out, result.code, result.close) == ("second line\n", 0, 1000)


@pytest.mark.parametrize("offset, replayed", [("0", b"\1first\n"), ("2", b"\1rst\n"), ("6", None), ("999", None)])
async def test_attaching_skips_what_was_received(emulator, offset, replayed):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "echo first; read line; echo second $line", stdin="true") as ws:
            id = (await ws.until_output(b"first\n")).texts("session_info")[0]["session_id"]
            async with client.session.ws_connect(f"/v1/sprites/{name}/exec/{id}?output_offset={offset}") as other:
                other = Socket(other)
                await other.frame()
                if replayed:
                    assert await other.frame() == replayed
                await other.send(b"\0line\n")
                assert (await other.result()).out == "second line\n"


async def test_an_offset_counts_output_that_is_no_longer_kept(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "head -c 100000 /dev/zero; echo end; read line", stdin="true") as ws:
            id = (await ws.until_output(b"end\n")).texts("session_info")[0]["session_id"]
            async with client.control(name) as control:
                await control.envelope({"type": "op.start", "op": "exec", "args": {"id": id, "output_offset": "100001"}})
                assert (await control.until_output(b"nd\n")).out == "nd\n"
                await ws.send(b"\0\n")
                assert (await control.result()).code == 0


@pytest.mark.parametrize("offset", ["-1", "x", "1.5", "%D9%A1", "9" * 5000])
async def test_a_bad_offset_is_refused(emulator, offset):
    async with emulator.client() as client:
        name = await client.create()
        async with client.exec(name, "sleep", "600") as ws:
            ready = await ws.frames_until(lambda frame: frame["type"] == "session_info")
            id = ready.texts("session_info")[0]["session_id"]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.session.ws_connect(yarl.URL(f"/v1/sprites/{name}/exec/{id}?output_offset={offset}", encoded=True))
            assert refused.value.status == 400


async def test_an_ended_session_cannot_be_attached_to(emulator):
    async with emulator.client() as client:
        name = await client.create()
        id = (await client.run(name, "true")).texts("session_info")[0]["session_id"]
        for path in (f"exec/{id}", f"exec?id={id}", "exec/none", "exec?id=none"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with client.session.ws_connect(f"/v1/sprites/{name}/{path}"):
                    pass
            assert refused.value.status == 404, path
