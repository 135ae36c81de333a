"""The program itself: flags, how it ends, what it leaves behind."""
import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import faults
import values
from emulator_client import FOLDER, PATIENCE, Emulator, until
from test_lifecycle import commands_running


def program(*flags):
    return subprocess.run([sys.executable, FOLDER, *flags], capture_output=True, text=True, timeout=PATIENCE)


def test_help_names_every_flag_and_fault():
    text = program("--help").stdout
    for flag in ("listen", "token", "seed", "create-delay", "wake-delay", "cold-wake-delay", "idle-pause", "cold-after",
                 "create-limit", "running-limit", "control-idle-holds", "live-op-complete", "has-more-always", "missing-500",
                 "list-heartbeat", "exit-tail", "resolve", "offline"):
        assert f"--{flag}" in text
    lines = text.splitlines()
    for name in faults.KNOWN:
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in lines), name


@pytest.mark.parametrize("flags", [[], ["--listen", "127.0.0.1:0"], ["--listen", "x", "--token", "t"],
                                   ["--listen", "127.0.0.1:0", "--token", "t", "--idle-pause", "30"],
                                   ["--listen", "127.0.0.1:0", "--token", "t", "--create-limit", "10"],
                                   ["--listen", "127.0.0.1:0", "--token", "t", "--control-idle-holds", "maybe"]] + [
    ["--listen", "127.0.0.1:0", "--token", "t", "--resolve", text] for text in (
        "x", "x=", "x=127.0.0.1", "x=127.0.0.1:0", "x=host:80", "=127.0.0.1:80", "*.x=127.0.0.1:80", "x=127.0.0.1:65536")])
def test_bad_flags_are_refused(flags):
    done = program(*flags)
    assert done.returncode == 2 and "error" in done.stderr


def test_a_taken_port_is_named():
    with Emulator() as emulator:
        taken = emulator.url.removeprefix("http://")
        done = program("--listen", taken, "--token", "t")
        assert done.returncode == 1 and taken in done.stderr


async def a_busy_sprite(emulator, word):
    """A Sprite with commands in and out of the group of their shell."""
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, f"sleep {word} >/dev/null 2>&1 & setsid -f sleep {word} >/dev/null 2>&1; touch ~/file")

        async def both():
            return len(commands_running(word)) == 2     # after its fork each still has to become a sleep

        await until(both)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_on_request_and_leaves_nothing(number, tmp_path, monkeypatch):
    with folder_for_sprites(monkeypatch) as folder:
        with Emulator() as emulator:
            word = str(6_000_000 + os.getpid())
            await a_busy_sprite(emulator, word)
            async with emulator.client() as client, client.control(await client.create()) as control:
                await control.start("sleep", word)
                creating = asyncio.ensure_future(client.call("POST", "/v1/sprites", json={"name": "late"}))
                await asyncio.sleep(0)
                emulator.process.send_signal(number)
                await control.gone()
                await asyncio.gather(creating, return_exceptions=True)
            assert emulator.process.wait(PATIENCE) == 0
            assert not commands_running(word)
            assert os.listdir(folder) == []


async def test_it_may_be_killed(monkeypatch):
    with folder_for_sprites(monkeypatch) as folder:
        word = str(7_000_000 + os.getpid())
        with Emulator() as emulator:
            await a_busy_sprite(emulator, word)
            emulator.process.kill()
            emulator.process.wait()

            async def none():
                return not commands_running(word)

            await until(none)
        assert len(os.listdir(folder)) == 1
        with Emulator() as emulator:            # the next one clears what it finds
            assert len(os.listdir(folder)) == 1
            with Emulator() as second:          # but not what is alive
                assert len(os.listdir(folder)) == 2
                assert second.url != emulator.url
        assert os.listdir(folder) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, "DELETE"])
async def test_a_sprite_that_is_being_started_leaves_nothing(how, monkeypatch):
    """It is held where bwrap has a child that waits for it."""
    with folder_for_sprites(monkeypatch) as folder, open(gate_before_bwrap(folder, monkeypatch), "r+b", buffering=0) as gate:
        with Emulator() as emulator:
            async with emulator.client() as client:
                name = await client.create()
                starting = asyncio.ensure_future(client.run(name, "true"))
                await until(lambda: are_left(2, folder))
                if how == "DELETE":
                    assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204
                else:
                    emulator.process.send_signal(how)
                    emulator.process.wait(PATIENCE)
                await asyncio.gather(starting, return_exceptions=True)
            if how == signal.SIGKILL:
                gate.write(b"go on")        # without the emulator nobody else ends it
            await until(lambda: are_left(0, folder))


def gate_before_bwrap(folder, monkeypatch):
    """A FIFO that bwrap reads from once it has forked."""
    gate, program = pathlib.Path(folder, "gate"), pathlib.Path(folder, "bwrap")
    os.mkfifo(gate)
    gate.chmod(0o644)
    program.write_text(f'#!/bin/sh\nexec 9<{gate}\nexec {shutil.which("bwrap")} --userns-block-fd 9 "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return gate


async def are_left(count, folder):
    """Of the processes that make a machine out of this folder."""
    return sum(name.isdigit() and is_bwrap(pathlib.Path("/proc", name), os.fsencode(folder)) for name in os.listdir("/proc")) == count


def is_bwrap(process, folder):
    try:
        return (process / "comm").read_text() == "bwrap\n" and folder in (process / "cmdline").read_bytes()
    except OSError:
        return False


def folder_for_sprites(monkeypatch):
    """A TMPDIR of the emulator's own, that other user ids may pass through."""
    folder = tempfile.TemporaryDirectory(prefix="sprites-")
    pathlib.Path(folder.name).chmod(0o755)
    monkeypatch.setenv("TMPDIR", folder.name)
    return folder


async def test_deleting_removes_the_files(monkeypatch):
    with folder_for_sprites(monkeypatch) as folder:
        with Emulator() as emulator:
            async with emulator.client() as client:
                before = sum(len(files) for _, _, files in os.walk(folder))
                name = await client.create()
                await client.shell(name, "mkdir -p a/b; echo x > a/b/c; chmod 000 a/b; chmod 000 a")
                assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204
                assert sum(len(files) for _, _, files in os.walk(folder)) == before


async def test_nothing_accumulates():
    """Descriptors and processes after many commands, sockets and Sprites are what they were."""
    with Emulator("--create-delay", "0", "--cold-wake-delay", "0") as emulator:
        async with emulator.client() as client:
            async def round():
                name = await client.create()
                async with client.control(name) as control:
                    for _ in range(5):
                        await control.run("sh", "-c", "echo x; sleep 60 >/dev/null 2>&1 & echo y")
                        await control.run("no-such-program")
                await client.run(name, "echo", "hi", tty="true")
                await client.pause(name)
                await client.run(name, "cat", stdin="false")
                await client.call("DELETE", f"/v1/sprites/{name}")

            await round()
            before = resources(emulator)
            await asyncio.gather(*(round() for _ in range(12)))

            async def same():
                return resources(emulator)[1] <= before[1] and resources(emulator)[0] <= before[0] + 12

            await until(same)       # kept-alive connections of this client may have become more


def resources(emulator):
    pid = emulator.process.pid
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return len(os.listdir(f"/proc/{pid}/fd")), len(children)


@pytest.mark.parametrize("text, seconds", [("300ms", 0.3), ("1m30s", 90), ("1.5s", 1.5), ("2.0s", 2), ("0s", 0), ("0", 0),
                                           ("1h", 3600), ("100us", 0.0001)])
def test_durations(text, seconds):
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1 s", "1x", "1s5"])
def test_what_is_not_a_duration(text):
    with pytest.raises(ValueError):
        values.duration(text)


async def test_the_event_loop_is_free_while_sprites_start():
    with Emulator("--cold-wake-delay", "0") as emulator:
        async with emulator.client() as client:
            names = [await client.create() for _ in range(20)]
            waking = asyncio.gather(*(client.run(name, "true") for name in names))
            longest = 0
            while not waking.done():
                before = time.monotonic()
                await client.state()
                longest = max(longest, time.monotonic() - before)
            assert {result.code for result in await waking} == {0}
            assert longest < 3
