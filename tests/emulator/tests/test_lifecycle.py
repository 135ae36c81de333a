"""cold, warm, running: what wakes, what pauses, what survives."""
import asyncio
import pathlib
import time

import pytest

from emulator_client import Emulator, until

PAUSE = ("--idle-pause", "800ms")


@pytest.fixture(scope="module")
def sleepy():
    with Emulator(*PAUSE) as emulator:
        yield emulator


async def test_cold_then_running_then_warm_then_running(sleepy):
    async with sleepy.client() as client:
        name = await client.create()
        assert await client.status(name) == "cold"
        assert (await client.run(name, "true")).code == 0
        assert await client.status(name) == "running"
        await client.until_status(name, "warm")
        assert (await client.call("GET", f"/v1/sprites/{name}")).json["status"] == "warm"
        assert await client.status(name) == "warm"      # the control plane wakes nobody
        assert (await client.call("GET", f"/v1/sprites/{name}/policy/network")).status == 200
        assert await client.status(name) == "running"


async def test_waking_holds_the_request():
    """A new Sprite and a paused one take the short delay, one that fell cold the long one."""
    with Emulator("--wake-delay", "200ms", "--cold-wake-delay", "900ms", "--cold-after", "1s") as emulator:
        async with emulator.client() as client:
            name = await client.create()
            for before_it, least, most in ((None, 0.2, 0.9), ("warm", 0.2, 0.9), ("cold", 0.9, 30)):
                if before_it:
                    await client.pause(name)
                while before_it == "cold" and await client.status(name) != "cold":
                    await asyncio.sleep(0.02)
                before = time.monotonic()
                async with client.control(name):
                    assert least <= time.monotonic() - before < most
                assert await client.status(name) == "running"


async def test_requests_that_wake_together_wake_once():
    with Emulator("--cold-wake-delay", "300ms") as emulator:
        async with emulator.client() as client:
            name = await client.create()
            results = await asyncio.gather(*(client.run(name, "cat", "/proc/1/stat") for _ in range(10)))
            assert {result.code for result in results} == {0}
            assert len({result.out.split()[21] for result in results}) == 1      # one and the same init


async def test_a_running_command_with_a_client_is_activity(sleepy):
    async with sleepy.client() as client:
        name = await client.create()
        result = await client.shell(name, "sleep 1.5; echo done")
        assert (result.out, result.code) == ("done\n", 0)


async def test_a_command_without_a_client_is_not(sleepy):
    async with sleepy.client() as client:
        name = await client.create()
        async with client.exec(name, "sh", "-c", "echo ready; while :; do echo >> ~/ticks; sleep 0.02; done",
                               max_run_after_disconnect="0") as ws:
            await ws.until_output(b"ready")
        await client.until_status(name, "warm")
        await asyncio.sleep(0.2)
        first = await client.run(name, "wc", "-l", "/home/sprite/ticks")
        assert first.code == 0

        async def grows():
            return (await client.run(name, "wc", "-l", "/home/sprite/ticks")).out != first.out

        await until(grows)          # frozen, not ended


async def test_an_idle_control_socket_holds_by_default(sleepy):
    async with sleepy.client() as client:
        name = await client.create()
        async with client.control(name) as control:
            await asyncio.sleep(1.5)
            assert await client.status(name) == "running"
            assert (await control.run("true")).code == 0
        await client.until_status(name, "warm")


async def test_an_idle_control_socket_that_does_not_hold():
    with Emulator(*PAUSE, "--control-idle-holds", "false") as emulator:
        async with emulator.client() as client:
            name = await client.create()
            async with client.control(name) as control:
                assert (await control.run("sleep", "1.2")).code == 0
                result = await control.result()
                assert result.close is None         # cut, no close frame
            assert await client.status(name) == "warm"


async def test_a_pause_cuts_every_socket_and_freezes_processes(emulator):
    async with emulator.client() as client:
        name = await client.create()
        async with client.control(name) as idle, client.control(name) as busy, \
                client.exec(name, "sh", "-c", "echo ready; exec sleep 60", max_run_after_disconnect="0") as ws:
            await ws.until_output(b"ready")
            await busy.start("sh", "-c", "while :; do date +%s.%N >> ~/times; echo; sleep 0.02; done",
                             max_run_after_disconnect="0")
            await busy.until_output(b"\n\x01\n\x01\n")
            await client.pause(name)
            for socket in (idle, busy, ws):
                assert (await socket.result()).close is None
        await asyncio.sleep(0.5)
        async with client.control(name) as control:
            await control.run("sleep", "0.1")
            times = [float(line) for line in (await control.run("cat", "/home/sprite/times")).out.split()]
            gaps = [b - a for a, b in zip(times, times[1:])]
            assert max(gaps) > 0.45 and len([gap for gap in gaps if gap > 0.3]) == 1
            assert (await control.run("pgrep", "-c", "sleep")).out != "0\n"
        sessions = (await client.call("GET", f"/v1/sprites/{name}/exec")).json
        assert sessions["count"] == 2


async def test_a_pause_is_over_when_all_processes_have_stopped(emulator):
    """Among many that want to run, each stops only when its turn comes."""
    async with emulator.client() as client:
        name = await client.create()
        script = f"for i in $(seq 40); do sh -c 'while :; do :; done' {name}-hog & done; sleep 0.2; echo ready; wait"
        async with client.exec(name, "sh", "-c", script, max_run_after_disconnect="0") as ws:
            await ws.until_output(b"ready")
            await client.pause(name)
            states = [pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                      for pid in commands_running(f"{name}-hog")]
        assert states == ["T"] * 40
        assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204


async def test_a_pause_leaves_stopped_processes_stopped(emulator):
    """Also those whose turn to stop has not come yet, since others are in front of them."""
    async with emulator.client() as client:
        name = await client.create()
        script = ("for i in $(seq 20); do nice -n 19 sh -c 'while :; do :; done' & done; sleep 0.2; low=$(jobs -p); "
                  "for i in $(seq 8); do sh -c 'while :; do :; done' & done; kill -STOP $low; echo $low ready; sleep 61; :")
        async with client.exec(name, "bash", "-c", script, max_run_after_disconnect="0") as ws:
            told = (await ws.until_output(b"ready")).out.split()[:-1]
            await client.pause(name)
        found = [line.split() for line in (await client.run(name, "ps", "-e", "-o", "pid=,stat=")).out.splitlines()]
        assert {pid for pid, state in found if state[0] == "T"} == set(told) and len(told) == 20
        assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204


async def test_warm_turns_cold_and_home_survives():
    with Emulator("--cold-after", "200ms") as emulator:
        async with emulator.client() as client:
            name = await client.create()
            await client.shell(name, "echo kept > ~/file; echo lost > /tmp/file")
            await client.leave_sleeping(name)
            await client.pause(name)
            await client.until_status(name, "cold")
            result = await client.shell(name, "cat ~/file; ls /tmp; pgrep -c sleep")
            assert result.out == "kept\n0\n"


async def test_files_and_processes_persist_between_commands(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "echo data > ~/f; echo tmp > /tmp/f")
        await client.leave_sleeping(name)
        assert (await client.shell(name, "cat ~/f /tmp/f; pgrep -c sleep")).out == "data\ntmp\n1\n"


async def test_the_machine_may_be_killed_from_within(emulator):
    """Whatever ends the init of a Sprite: connections drop, the Sprite is cold, and wakes again."""
    async with emulator.client() as client:
        name = await client.create()
        await client.fault("kill_vm", match={"sprite": name}, count=1, delay_ms=10)
        async with client.control(name) as control:
            result = await control.run("sleep", "600")
            assert (result.close, result.code) == (None, None)
        await client.until_status(name, "cold")
        assert (await client.run(name, "pgrep", "-c", "sleep")).out == "0\n"
        await client.clear_faults()


async def test_destroying_ends_everything(emulator):
    async with emulator.client() as client:
        name = await client.create()

        async def two_run():
            return len(commands_running(f"{name}-left")) == 2

        async with client.control(name) as control:
            await control.start("sh", "-c", f"sh -c 'sleep 61; :' {name}-left & setsid sh -c 'sleep 61; :' {name}-left & echo ready; wait")
            await control.until_output(b"ready")
            await until(two_run)
            assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204
            assert (await control.result()).close is None
        assert not commands_running(f"{name}-left")
        assert await client.status(name) is None


async def test_destroying_while_it_wakes():
    with Emulator("--wake-delay", "40s") as emulator:
        async with emulator.client() as client:
            name = await client.create()
            waiting = asyncio.ensure_future(client.call("GET", f"/v1/sprites/{name}/policy/network"))
            await asyncio.sleep(0.2)
            before = time.monotonic()
            assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204
            assert (await waiting).status == 404
            assert time.monotonic() - before < 15


def commands_running(word):
    """Processes of this machine with this word in their command line: pid -> words."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if word in words:
            found[int(path.parent.name)] = words
    return found
