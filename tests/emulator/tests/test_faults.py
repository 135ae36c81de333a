"""Every fault, as a client meets it."""
import asyncio
import contextlib
import time

import aiohttp
import pytest

import faults
from emulator_client import PATIENCE, Emulator, until


@contextlib.asynccontextmanager
async def faulty(emulator, fault, **more):
    """A client with a running Sprite and one fault on it."""
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            await client.fault(fault, match={"sprite": name}, **more)
            try:
                yield client, name, control
            finally:
                await client.clear_faults()


def is_session(frame):
    return isinstance(frame, dict) and frame["type"] == "session_info"


async def starts(client, id):
    return (await client.state())["starts"].get(id, 0)


async def test_faults_are_listed_and_cleared(emulator):
    async with emulator.client() as client:
        await client.fault("create_429", rate=0.5, count=3, match={"sprite": "none-*"})
        await client.fault("stall")
        listed = (await client.call("GET", "/_emulator/faults")).json["faults"]
        assert listed[0] == {"name": "create_429", "rate": 0.5, "count": 3, "match": {"sprite": "none-*"},
                             "retry_after_seconds": 1, "hits": 0}
        assert (listed[1]["name"], listed[1]["rate"], listed[1]["count"]) == ("stall", 1.0, None)
        assert (await client.call("DELETE", "/_emulator/faults?name=stall")).status == 204
        assert [f["name"] for f in (await client.call("GET", "/_emulator/faults")).json["faults"]] == ["create_429"]
        await client.clear_faults()
        assert (await client.call("GET", "/_emulator/faults")).json == {"faults": []}


@pytest.mark.parametrize("body", [{}, {"name": "nonsense"}, {"name": "stall", "rate": 2}, {"name": "stall", "rate": "x"},
                                  {"name": "stall", "count": 0}, {"name": "stall", "match": {"host": "x"}},
                                  {"name": "stall", "bytes": 1}, {"name": "stall", "delay_ms": "long"}, [], None,
                                  {"name": "http_error", "status": 200}, {"name": "http_error", "status": "500"},
                                  {"name": "http_error", "after": 1}, {"name": "http_error", "limit": "wild"}, {"name": "latency", "distribution": "wild"},
                                  {"name": "stall", "match": {"path": 7}}, {"name": "blackhole", "on": "close"}, {"name": "op_error", "code": 5}, {"name": "cut_before_exit", "close": 99},
                                  {"name": "pause_under_socket", "on": "output"}, {"name": "stall", "on": "start"}, {"name": "cut_mid_frame", "on": "open"}])
async def test_a_bad_fault_is_refused(emulator, body):
    async with emulator.client() as client:
        answer = await client.call("POST", "/_emulator/faults", json=body)
        assert answer.status == 400 and answer.json["error"]


async def test_every_name_is_accepted(emulator):
    async with emulator.client() as client:
        for name in faults.KNOWN:
            await client.fault(name, match={"sprite": "nobody"})
        await client.clear_faults()


# -- creation, deletion, lookup --------------------------------------------------

async def test_create_429(emulator):
    async with emulator.client() as client:
        await client.fault("create_429", count=1, match={"sprite": "limited"}, retry_after_seconds=7)
        before = (await client.state())["creates_refused"]
        answer = await client.call("POST", "/v1/sprites", json={"name": "limited"})
        assert (answer.status, answer.json["error"]) == (429, "sprite_creation_rate_limited")
        assert (answer.headers["Retry-After"], answer.json["retry_after_seconds"]) == ("7", 7)
        assert (await client.state())["creates_refused"] == before + 1
        await client.create("limited")
        await client.clear_faults()


async def test_create_500(emulator):
    async with emulator.client() as client:
        for created in (False, True):
            name = f"failed-{created}".lower()
            await client.fault("create_500", count=1, match={"sprite": name}, created=created)
            answer = await client.call("POST", "/v1/sprites", json={"name": name})
            assert (answer.status, answer.json) == (500, {"error": "failed to create sprite"})
            assert (await client.call("GET", f"/v1/sprites/{name}")).status == (200 if created else 404)
        await client.clear_faults()


async def test_create_hang(emulator):
    async with emulator.client() as client:
        await client.fault("create_hang", delay_ms=400, match={"sprite": "hangs"})
        before = time.monotonic()
        await client.create("hangs")
        assert time.monotonic() - before >= 0.4
        await client.clear_faults()


async def test_a_creation_that_hangs_succeeds_after_its_client_has_left(emulator):
    async with emulator.client() as client:
        await client.fault("create_hang", delay_ms=500, match={"sprite": "abandoned"})
        with pytest.raises(TimeoutError):
            await client.call("POST", "/v1/sprites", json={"name": "abandoned"}, timeout=aiohttp.ClientTimeout(0.2))
        assert await client.status("abandoned") is None
        await client.until_status("abandoned", "cold")
        assert (await client.call("POST", "/v1/sprites", json={"name": "abandoned"})).status == 409
        await client.clear_faults()


async def test_starting_503(emulator):
    async with faulty(emulator, "starting_503", count=2) as (client, name, _):
        for path in ("policy/network", "control"):
            answer = await client.call("GET", f"/v1/sprites/{name}/{path}", headers={"Upgrade": "websocket"})
            assert (answer.status, answer.json["error"], answer.headers["Retry-After"]) == (503, "sprite_starting", "5")
        assert (await client.call("GET", f"/v1/sprites/{name}/policy/network")).status == 200


async def test_false_404(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.fault("false_404", count=1, match={"sprite": name, "method": "DELETE"})
        assert (await client.call("GET", f"/v1/sprites/{name}")).status == 200
        refused = await client.call("DELETE", f"/v1/sprites/{name}")
        assert (refused.status, refused.json) == (404, {"error": "sprite not found"})
        assert await client.status(name) == "cold"
        await client.clear_faults()


async def test_delete_500(emulator):
    async with emulator.client() as client:
        for deleted in (False, True):
            name = await client.create()
            await client.fault("delete_500", count=1, match={"sprite": name}, deleted=deleted)
            answer = await client.call("DELETE", f"/v1/sprites/{name}")
            assert (answer.status, answer.json) == (500, {"error": "failed to delete sprite"})
            assert (await client.status(name) is None) == deleted
        await client.clear_faults()


# -- any request ------------------------------------------------------------------

GET, DELETE, FILE = ("GET", ""), ("DELETE", ""), ("PUT", "/fs/write?path=f")
AGENT = (("GET", "/exec"), ("GET", "/policy/network"), ("GET", "/checkpoints"), ("GET", "/services"), ("POST", "/checkpoint"))
CALLS = (GET, DELETE, ("POST", "/upgrade"), *AGENT, FILE)
LIMIT = {"error": "concurrent_sprite_limit_exceeded", "message": "Concurrent sprite limit exceeded: 3 of 3 running", "limit": 3, "current_count": 3,
         "retry_after_seconds": 7, "upgrade_available": True, "upgrade_url": "https://fly.io/dashboard"}
STARTING = {"error": "sprite_starting", "message": "sprite is starting", "retry_after_seconds": 7}      # and the id
# Of each status who says what: a body in JSON, or a line of text.
BODIES = {
    400: {GET: {"errors": ["bad request"]}, FILE: {"error": "bad request", "code": "EINVAL"}, ("GET", "/exec"): "No command specified\n",
          ("GET", "/policy/network"): "invalid policy config: rules is required\n", ("POST", "/checkpoint"): "bad request\n"},
    401: dict.fromkeys(CALLS, {"error": "authentication failed"}),
    403: dict.fromkeys(CALLS, {"error": "forbidden"}),
    404: dict.fromkeys(CALLS, {"error": "sprite not found"}),
    409: {DELETE: {"error": "conflict"}, FILE: {"error": "conflict", "code": "EEXIST"}, ("GET", "/services"): "conflict\n"},
    410: {GET: {"error": "gone"}, ("GET", "/exec"): "session already exited\n"},
    429: dict.fromkeys(CALLS, LIMIT),
    500: {GET: {"error": "failed to retrieve sprite"}, DELETE: {"error": "failed to delete sprite"}, FILE: {"error": "internal server error", "code": "EIO"},
          ("GET", "/exec"): "failed to create runner\n", ("GET", "/checkpoints"): "Failed to get checkpoint: the storage is not ready\n",
          ("GET", "/services"): "internal server error\n"},
    502: dict.fromkeys(CALLS, "Bad Gateway\n"),
    503: {GET: {"error": "service unavailable"}, DELETE: {"error": "service unavailable"}, **dict.fromkeys((*AGENT, FILE), STARTING)},
    504: dict.fromkeys(CALLS, "Gateway Timeout\n"),
    599: {GET: {"error": "failed to retrieve sprite"}, ("GET", "/services"): "status 599\n"},
}


@pytest.mark.parametrize("status", BODIES)
async def test_http_error(emulator, status):
    async with emulator.client() as client:
        name = await client.create()
        id = (await client.call("GET", f"/v1/sprites/{name}")).json["id"]
        await client.fault("http_error", status=status, retry_after_seconds=7, match={"sprite": name})
        for method, path in CALLS:
            answer = await client.call(method, f"/v1/sprites/{name}{path}")
            assert answer.status == status and answer.body, (method, path)
            wanted = BODIES[status].get((method, path))
            if wanted is STARTING:
                wanted = {**STARTING, "sprite_id": id}
            if isinstance(wanted, str):
                assert (answer.text, answer.headers["X-Content-Type-Options"]) == (wanted, "nosniff"), (method, path)
            elif wanted is not None:
                assert answer.json == wanted, (method, path)
            assert answer.headers.get("Retry-After") == ("7" if status in (429, 503) else None)
            by_agent = status not in (401, 403, 404, 429, 502, 503, 504) and (method, path) in (*AGENT, FILE)
            assert ("Sprite-Version" in answer.headers, "X-Request-Id" in answer.headers) == (by_agent, not by_agent), (method, path)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with client.control(name):
                pass
        assert refused.value.status == status
        await client.clear_faults()
        assert await client.status(name) == "cold"      # nothing of it has happened
        assert (await client.call("GET", f"/v1/sprites/{name}/checkpoints")).json[0]["id"] == "Current"


async def test_http_error_of_too_many_requests(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.fault("http_error", status=429, limit="requests", retry_after_seconds=7, match={"sprite": name})
        for method, path in CALLS:
            answer = await client.call(method, f"/v1/sprites/{name}{path}")
            assert (answer.status, answer.text, answer.headers["Retry-After"]) == (429, "Too Many Requests\n", "7"), (method, path)
        await client.clear_faults()


@pytest.mark.parametrize("status, body", [
    (400, {"errors": ["invalid sprite name format"]}), (500, {"error": "failed to create sprite"}), (503, {"error": "service unavailable"}),
    (409, {"error": "A sprite named 'never-made' already exists. Please choose a different name."})])
async def test_http_error_of_a_creation(emulator, status, body):
    async with emulator.client() as client:
        await client.fault("http_error", status=status, count=1, match={"path": "/v1/sprites", "sprite": "never-made"})
        answer = await client.call("POST", "/v1/sprites", json={"name": "never-made"})
        assert (answer.status, answer.json) == (status, body)
        assert await client.status("never-made") is None
        await client.clear_faults()


async def test_http_error_after_it_took_effect(emulator):
    async with emulator.client() as client:
        await client.fault("http_error", status=502, after=True, count=2, match={"sprite": "halfway"})
        assert (await client.call("POST", "/v1/sprites", json={"name": "halfway"})).status == 502
        assert await client.status("halfway") == "cold"
        assert (await client.call("DELETE", "/v1/sprites/halfway")).status == 502
        assert await client.status("halfway") is None
        await client.clear_faults()


@pytest.mark.parametrize("after", [False, True])
async def test_cut_request(emulator, after):
    async with emulator.client() as client:
        name = f"cut-{after}".lower()
        await client.fault("cut_request", after=after, count=1, match={"sprite": name})
        with pytest.raises(aiohttp.ClientError):
            await client.call("POST", "/v1/sprites", json={"name": name})
        assert await client.status(name) == ("cold" if after else None)
        await client.clear_faults()


async def test_paths_and_methods_narrow_a_fault(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.fault("http_error", match={"path": "*/policy/*", "method": "POST", "sprite": name})
        rules = {"json": {"rules": []}}
        assert (await client.call("POST", f"/v1/sprites/{name}/policy/network", **rules)).status == 500
        assert (await client.call("GET", f"/v1/sprites/{name}/policy/network")).status == 200
        assert (await client.call("POST", "/v1/sprites/nobody/policy/network", **rules)).status == 404
        await client.clear_faults()
        await client.fault("clock_skew", match={"path": "*/checkpoints"}, seconds=-86400)
        skewed = (await client.call("GET", f"/v1/sprites/{name}/checkpoints")).json
        whole = (await client.call("GET", f"/v1/sprites/{name}")).json
        assert skewed[1]["create_time"][:19] < whole["created_at"][:19] and skewed[1]["create_time"][11:] == whole["created_at"][11:19] + "Z"
        await client.clear_faults()


async def test_latency(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.fault("latency", ms=300, match={"sprite": name, "path": "*/exec"})
        before = time.monotonic()
        assert (await client.run(name, "true")).code == 0
        assert time.monotonic() - before >= 0.3
        assert (await client.state())["sprites"]        # never the emulator's own
        await client.clear_faults()


@pytest.mark.parametrize("distribution, least, most, mean", [
    ("fixed", 100, 100, 100), ("uniform", 80, 120, 100), ("normal", 0, 200, 100), ("exponential", 0, 1000, 100),
    ("pareto", 100, 1000, 250)])
def test_latencies_are_distributed(distribution, least, most, mean):
    def draw(seed):
        fault = faults.Fault({"name": "latency", "distribution": distribution, "ms": 100, "spread_ms": 20, "max_ms": 1000}, seed, 0)
        return [fault.latency() * 1000 for _ in range(4000)]

    drawn = draw(1)
    assert drawn == draw(1) and (distribution == "fixed") == (drawn == draw(2))
    assert least <= min(drawn) and max(drawn) <= most
    assert abs(sum(drawn) / len(drawn) - mean) < 0.1 * mean


# -- checkpoints ------------------------------------------------------------------

async def test_checkpoint_error(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.fault("checkpoint_error", match={"sprite": name}, count=1)
        answer = await client.call("POST", f"/v1/sprites/{name}/checkpoint")
        assert answer.status == 200 and [line["type"] for line in answer.lines] == ["info", "error"]
        assert await client.checkpoint(name) == "v1"
        await client.clear_faults()


@pytest.mark.parametrize("count", [0, 1])
async def test_cut_lines(emulator, count):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "echo kept > f")
        await client.checkpoint(name)
        await client.shell(name, "echo lost > f")
        await client.fault("cut_lines", lines=count, match={"sprite": name}, count=1)
        lines = []
        with pytest.raises(aiohttp.ClientError):
            async with client.session.post(f"/v1/sprites/{name}/checkpoints/v1/restore") as response:
                async for line in response.content:
                    lines.append(line)
        assert len(lines) == count and all(b"Restoring" in line for line in lines)

        async def restored():
            return (await client.run(name, "cat", "f")).out == "kept\n"

        await until(restored)
        await client.clear_faults()


async def test_a_line_of_a_stream_may_be_wrong(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.checkpoint(name)
        await client.fault("missing_field", field="type", match={"sprite": name})
        assert not any("type" in line for line in await client.restore(name, "v1"))
        await client.clear_faults()


# -- cuts -------------------------------------------------------------------------

@pytest.mark.parametrize("fault, started, frames", [
    ("cut_before_start", 0, []),
    ("cut_after_start", 1, [("control", "op.ack")]),
    ("cut_before_output", 1, [("control", "op.ack"), "debug", "session_info"]),
    ("cut_mid_frame", 1, [("control", "op.ack"), "debug", "session_info"]),
    ("cut_after_output", 1, [("control", "op.ack"), "debug", "session_info", b"\x01hello\n"]),
    ("cut_before_exit", 1, [("control", "op.ack"), "debug", "session_info", b"\x01hello\n"]),
    ("cut_after_exit", 1, [("control", "op.ack"), "debug", "session_info", b"\x01hello\n", "exit", b"\3\0"]),
])
@pytest.mark.parametrize("socket", ["control", "exec"])
async def test_cuts(emulator, fault, started, frames, socket):
    async with faulty(emulator, fault, count=1) as (client, name, control):
        id = f"{fault}-{socket}"
        script, env = "echo hello; sleep 0.3; echo x > ~/done", [f"SPRITEGATE_EXEC_ID={id}", "PATH=/usr/bin"]
        if socket == "control":
            result = await control.run("sh", "-c", script, env=env)
        else:
            frames = [frame for frame in frames if not isinstance(frame, tuple)]
            result = await client.run(name, "sh", "-c", script, env=env)
        seen = [(frame[0], frame[1]["type"]) if isinstance(frame, tuple) else frame["type"] if isinstance(frame, dict)
                else frame for frame in result.frames]
        assert seen == frames
        assert (result.close, result.code) == (None, 0 if fault == "cut_after_exit" else None)
        assert await starts(client, id) == started

        async def done():
            return (await client.run(name, "test", "-e", "/home/sprite/done")).code == 0

        if started:
            await until(done)       # the command goes on without its client
        else:
            assert not await done()


@pytest.mark.parametrize("code", [1000, 1011])
@pytest.mark.parametrize("fault", ["cut_before_start", "cut_after_start", "cut_before_output", "cut_after_output", "cut_before_exit", "cut_after_exit"])
async def test_cuts_with_a_close_frame(emulator, fault, code):
    async with faulty(emulator, fault, close=code) as (client, name, control):
        for result in (await control.run("echo", "hello"), await client.run(name, "echo", "hello")):
            assert result.close == code
            assert result.out == ("hello\n" if fault in ("cut_after_output", "cut_before_exit", "cut_after_exit") else "")
            assert result.exits == ([0] if fault == "cut_after_exit" else []) and "op.complete" not in [told["type"] for told in result.envelopes]


@pytest.mark.parametrize("fault, started, out", [(None, 1, "SPRITEGATE_EXEC_ID={}\n"), ("cut_before_start", 0, ""), ("cut_after_start", 1, "")])
async def test_what_waits_starts_when_it_is_told(emulator, fault, started, out):
    """As the gateway's own program does, which is started ahead of its command."""
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            await control.run("sh", "-c", "printf '#!/bin/sh\\nread line; sleep 0.3; echo $line' >shim && chmod 755 shim")
            if fault:
                await client.fault(fault, match={"sprite": name})
            id = f"waits-{fault}"
            await control.start("/home/sprite/shim", "wait", stdin="true")
            await control.frames_until(is_session)
            assert await starts(client, id) == 0
            assert [sprite["waits"] for sprite in (await client.state())["sprites"] if sprite["name"] == name] == [True]
            await control.send(f"\0SPRITEGATE_EXEC_ID={id}\n".encode())
            result = await control.result()
            assert (result.out, result.code) == (out.format(id), None if fault else 0)
            await until(lambda: is_count(client, id, started))
            await client.clear_faults()


async def is_count(client, id, count):
    return await starts(client, id) == count


@pytest.mark.parametrize("on, command", [("output", "true"), ("exit", "true"), ("exit", "pwd")])
async def test_cut_mid_frame_of_the_exit(emulator, on, command):
    async with faulty(emulator, "cut_mid_frame", count=1, on=on) as (client, name, control):
        result = await control.run(command)
        assert bool(result.out) == (command == "pwd")
        assert (result.texts("exit")[0]["exit_code"], result.code, result.close) == (0, None, None)


@pytest.mark.parametrize("fault", ["stall", "blackhole"])
async def test_what_is_held_from_the_exit_on(emulator, fault):
    async with faulty(emulator, fault, count=1, delay_ms=300, on="exit") as (client, name, control):
        await control.start("echo", "hello")
        await control.frames_until(lambda frame: frame == b"\x01hello\n")
        before = time.monotonic()
        assert (await control.result()).code == 0
        assert time.monotonic() - before >= 0.25, "the exit has come with the output"


# -- what a client is told wrongly ---------------------------------------------------

async def test_duplicate_exit(emulator):
    async with faulty(emulator, "duplicate_exit", code=0) as (client, name, control):
        assert (await control.run("false")).exits == [1, 0]
        assert (await client.run(name, "false")).exits == [1, 0]


async def test_no_exit_code(emulator):
    async with faulty(emulator, "no_exit_code") as (client, name, control):
        result = await control.run("echo", "hi")
        assert (result.out, result.exits, result.texts("exit")) == ("hi\n", [], [])
        assert result.envelopes[-1]["args"] == {"ok": True}
        result = await client.run(name, "echo", "hi")
        assert (result.out, result.exits, result.texts("exit"), result.close) == ("hi\n", [], [], 1000)


async def test_stall(emulator):
    async with faulty(emulator, "stall", delay_ms=300) as (client, name, control):
        for command in ("true", "pwd"):
            before = time.monotonic()
            assert (await control.run(command)).code == 0
            assert time.monotonic() - before >= 0.3


async def answers(control, seconds):
    """Whether a ping is answered in this time. aiohttp hides pongs from those who read: this one does not read meanwhile."""
    reader = control.ws._reader
    await control.ws.ping(b"there?")
    try:
        message = await asyncio.wait_for(reader.read(), seconds)
    except TimeoutError:
        return False
    assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"there?")
    return True


async def silent(control):
    return not await answers(control, 0.3)


async def test_a_stall_answers_pings(emulator):
    async with faulty(emulator, "stall", delay_ms=60_000) as (client, name, control):
        await control.start("echo", "hi")
        await control.frames_until(is_session)
        assert await answers(control, PATIENCE)


async def test_a_blackhole_answers_nothing_and_goes_on(emulator):
    async with faulty(emulator, "blackhole", delay_ms=1000, count=1) as (client, name, control):
        before = time.monotonic()
        await control.start("sh", "-c", "echo one; echo two >&2; exit 3")
        await control.frames_until(is_session)
        await until(lambda: silent(control))
        result = await control.result()
        assert (result.out, result.err, result.code) == ("one\n", "two\n", 3)
        assert time.monotonic() - before >= 1


async def test_a_blackhole_under_a_silent_command(emulator):
    async with faulty(emulator, "blackhole", delay_ms=300, count=1) as (client, name, control):
        before = time.monotonic()
        assert (await control.run("true")).code == 0
        assert time.monotonic() - before >= 0.3


async def test_a_blackhole_before_the_start(emulator):
    """A client that gives up never ran anything."""
    async with faulty(emulator, "blackhole", on="start", delay_ms=60_000, count=1) as (client, name, control):
        before = (await client.state())["started"]
        await control.start("touch", "/home/sprite/ran")
        await until(lambda: silent(control))
        control.reset()

        async def forgotten():
            return (await client.state())["sprites"] and not (await client.call("GET", f"/v1/sprites/{name}/exec")).json["count"]

        await until(forgotten)
        assert (await client.run(name, "ls")).out == "" and (await client.state())["started"] == before + 1


async def test_a_blackhole_since_the_socket_opened(emulator):
    async with faulty(emulator, "blackhole", on="open", delay_ms=1000, count=1) as (client, name, _):
        async with client.control(name) as control:
            assert await silent(control)
            assert (await control.run("echo", "late")).out == "late\n"


async def test_op_error(emulator):
    async with faulty(emulator, "op_error", code="op.not_found", count=1) as (client, name, control):
        await control.start("touch", "ran", id="7")
        [refused] = (await control.result()).envelopes
        assert (refused["type"], refused["id"], refused["op"], refused["args"]["code"]) == ("op.error", "7", "exec", "op.not_found")
        assert (await control.run("ls")).out == ""


async def test_op_error_of_a_command_that_runs(emulator):
    async with faulty(emulator, "op_error", acknowledged=True, count=1) as (client, name, control):
        await control.start("echo", "ran", id="7")
        assert [told["type"] for told in (await control.result()).envelopes] == ["op.ack", "op.error"]
        assert ((await control.result()).out, (await control.run("echo", "again")).out) == ("ran\n", "again\n")


async def test_fast_output(emulator):
    """What was printed before anybody listened is there up to the history, then what follows; input is not lost."""
    async with faulty(emulator, "fast_output", history=10, delay_ms=300) as (client, name, control):
        for run in (control.run, lambda *words: client.run(name, *words)):
            result = await run("sh", "-c", "seq 100; exit 4")
            assert (result.out, result.code) == ("98\n99\n100\n", 4)
            assert result.texts("debug")[-1]["msg"] == "fast_path attach_err=session_ended exit_code=4 history_len=10"
            result = await run("sh", "-c", "echo one; sleep 1; echo two")
            assert (result.out, result.code, result.texts("debug")[-1]["msg"]) == ("one\ntwo\n", 0, "normal_path history_len=4")
        await control.start("sh", "-c", "read go; seq 100", stdin="true")
        await control.send(b"\0go\n")
        assert (await control.result()).out == "".join(f"{n}\n" for n in range(1, 101))


async def test_fast_output_of_which_nothing_comes(emulator):
    async with faulty(emulator, "fast_output", closed=True, delay_ms=300) as (client, name, control):
        result = await control.run("echo", "hi")
        assert [frame[1]["type"] for frame in result.frames] == ["op.ack", "op.complete"] and result.envelopes[-1]["args"] == {"ok": True}
        result = await client.run(name, "echo", "hi")
        assert (result.frames, result.close) == ([], 1000)
        assert (await control.run("sh", "-c", "echo one; sleep 1; echo two")).out == "one\ntwo\n"


async def test_the_history_is_capped_exactly(emulator):
    async with faulty(emulator, "fast_output", delay_ms=500) as (client, name, control):
        result = await control.run("sh", "-c", "seq 100000 | head -c 300000; exit 5")
        whole = "".join(f"{n}\n" for n in range(1, 100_001))[:300_000]
        assert (result.out == whole[-65536:], result.code) == (True, 5)


async def test_slow_drip(emulator):
    async with faulty(emulator, "slow_drip", bytes=4, delay_ms=50) as (client, name, control):
        before = time.monotonic()
        result = await control.run("echo", "0123456789")
        assert [frame for frame in result.frames if isinstance(frame, bytes)] == [b"\x010123", b"\x014567", b"\x0189\n", b"\3\0"]
        assert time.monotonic() - before >= 0.15


async def test_a_slow_client_gets_what_was_in_the_pipes_at_the_end(emulator):
    async with faulty(emulator, "slow_drip", bytes=2000, delay_ms=15) as (client, name, control):
        result = await control.run("sh", "-c", "sleep 60 & head -c 60000 /dev/zero")
        assert (len(result.of(1)), result.code) == (60000, 0)


async def test_early_exit(emulator):
    async with faulty(emulator, "early_exit") as (client, name, control):
        for run in (control.run, lambda *words: client.run(name, *words)):
            result = await run("sh", "-c", "echo one; sleep 0.1; echo two >&2; exit 4")
            kinds = [frame["type"] if isinstance(frame, dict) else frame for frame in result.frames if not isinstance(frame, tuple)]
            assert kinds[-4:] == [b"\1one\n", "exit", b"\2two\n", b"\3\4"]
            assert (await run("true")).code == 0


async def test_late_output(emulator):
    async with faulty(emulator, "late_output", pieces=2, count=1) as (_, _, control):
        result = await control.run("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done; exit 4")
        frames = [frame for frame in result.frames if isinstance(frame, bytes)]
        assert frames == [b"\1" b"1\n", b"\3\4", b"\1" b"2\n", b"\1" b"3\n"]
        assert (await control.run("echo", "next")).of(1) == b"next\n"


async def test_merged_frames(emulator):
    async with faulty(emulator, "merged_frames", bytes=3) as (client, name, _):
        async with client.session.post(f"/v1/sprites/{name}/exec?cmd=sh&cmd=-c&cmd=echo one; exit 4") as answer:
            chunks = []
            async for data, _ in answer.content.iter_chunks():
                chunks.append(data)
            assert b"".join(chunks) == b"\1one\n\3\4" and chunks[0] == b"\1on"


async def test_lose_bytes_above(emulator):
    async with faulty(emulator, "lose_bytes_above", bytes=1000) as (client, name, control):
        result = await control.run("sh", "-c", "head -c 100000 /dev/zero; head -c 999 /dev/zero >&2")
        assert (len(result.of(1)), len(result.of(2)), result.code) == (1000, 999, 0)


async def test_lose_input_above(emulator):
    async with faulty(emulator, "lose_input_above", bytes=1000) as (client, name, control):
        await control.start("wc", "-c", stdin="true")
        for _ in range(3):
            await control.send(b"\0" + b"x" * 400)
        await control.send(b"\4")
        result = await control.result()
        assert (result.of(1).strip(), result.code) == (b"1000", 0)


async def test_wrong_type_and_missing_field(emulator):
    async with emulator.client() as client:
        name = await client.create()
        path = f"/v1/sprites/{name}"
        await client.fault("wrong_type", field="status", count=1, match={"sprite": name})
        assert (await client.call("GET", path)).json["status"] == 7
        await client.fault("missing_field", field="name", count=1, match={"sprite": name})
        assert "name" not in (await client.call("GET", path)).json
        await client.clear_faults()
        whole = (await client.call("GET", path)).json
        await client.fault("wrong_type", match={"sprite": name})
        assert sum(type(a) is not type(b) for a, b in zip((await client.call("GET", path)).json.values(), whole.values())) == 1
        result = await client.run(name, "true")
        assert result.frames[-1] == b"\3\0"
        await client.clear_faults()


async def test_clock_skew(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.fault("clock_skew", seconds=-86400, count=1, match={"sprite": name})
        skewed = (await client.call("GET", f"/v1/sprites/{name}")).json["created_at"]
        right = (await client.call("GET", f"/v1/sprites/{name}")).json["created_at"]
        assert skewed < right and skewed[11:] == right[11:]
        await client.clear_faults()


# -- the machine ----------------------------------------------------------------------

@pytest.mark.parametrize("fault, status", [("pause_under_socket", "warm"), ("kill_vm", "cold")])
async def test_the_machine_goes_away_under_a_command(emulator, fault, status):
    async with faulty(emulator, fault, delay_ms=20, count=1) as (client, name, control):
        result = await control.run("sleep", "600")
        assert (result.code, result.close) == (None, None)
        await client.until_status(name, status)
        assert (await client.run(name, "echo", "again")).out == "again\n"


async def test_a_pause_under_an_idle_socket(emulator):
    async with faulty(emulator, "pause_under_socket", on="open", delay_ms=0, count=1) as (client, name, _):
        async with client.control(name) as control:
            assert (await control.result()).close is None
        assert await client.status(name) == "warm"


# -- which occasions ------------------------------------------------------------------

async def test_the_seed_decides_which_occasions_are_struck():
    async def pattern(seed):
        with Emulator("--seed", str(seed)) as emulator:
            async with emulator.client() as client:
                await client.fault("create_500", rate=0.5)
                answers = [await client.call("POST", "/v1/sprites", json={"name": f"n{i}"}) for i in range(24)]
                return [answer.status for answer in answers]

    first = await pattern(1)
    assert set(first) == {201, 500}
    assert first == await pattern(1) != await pattern(2)


async def test_names_match_exactly_or_by_prefix():
    fault = faults.Fault({"name": "slow_drip", "match": {"sprite": "sg-a-*"}}, 1, 0)
    assert fault.strikes("sg-a-1", None, None) and not fault.strikes("sg-b-1", None, None)
    exact = faults.Fault({"name": "slow_drip", "match": {"sprite": "sg-a"}}, 1, 0)
    assert exact.strikes("sg-a", None, None) and not exact.strikes("sg-a1", None, None)
