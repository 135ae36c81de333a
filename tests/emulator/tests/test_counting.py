"""Starts are counted when they may have happened, not when the emulator has heard of them."""
import asyncio
import contextlib
import importlib.util
import os

import pytest

import command as commands
import sprite as sprites
from emulator_client import FOLDER, QUICK, TOKEN, until
from sandbox import Sandbox, SandboxError, StartError
from world import World


@contextlib.asynccontextmanager
async def world():
    """Without the HTTP around it."""
    spec = importlib.util.spec_from_file_location("emulator_flags", FOLDER / "__main__.py")
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    settings = main.parse_flags(["--listen", "127.0.0.1:0", "--token", TOKEN, *QUICK])
    settings.network, settings.control_groups = False, None
    made = World(settings)
    try:
        yield made
    finally:
        await made.close()


class Mute(Sandbox):
    """Its word of a start never arrives."""

    def answer(self, message, fds):
        if "started" in message:
            self.kept = fds
        else:
            super().answer(message, fds)

    def close(self):
        for fd in getattr(self, "kept", ()):
            os.close(fd)
        super().close()


def shell(line, id):
    return commands.from_args({"cmd": ["sh", "-c", line], "path": "/bin/sh", "env": [f"SPRITEGATE_EXEC_ID={id}"]})


async def test_a_start_whose_answer_is_lost(monkeypatch):
    monkeypatch.setattr(sprites, "Sandbox", Mute)
    async with world() as made:
        sprite = await made.create({"name": "mute"})
        async with sprite.busy():
            running = asyncio.ensure_future(sprite.execute(shell("echo ran > /home/sprite/ran", "one")))

            async def ran():
                return (sprite.disk.path / "home/ran").exists()

            await until(ran)
            await sprite.crash()
            with pytest.raises(SandboxError):
                await running
        assert (made.starts, made.started) == ({"one": 1}, 1)


async def test_a_start_that_fails_and_one_that_is_not_asked_for():
    async with world() as made:
        sprite = await made.create({"name": "fails"})
        async with sprite.busy():
            missing = commands.from_args({"cmd": ["/no/such/program"], "env": ["SPRITEGATE_EXEC_ID=none"]})
            with pytest.raises(StartError):
                await sprite.execute(missing)
            assert (made.starts, made.started) == ({}, 0)
            await sprite.sandbox.kill()
            with pytest.raises(SandboxError):
                await sprite.execute(shell("true", "none"))
        assert (made.starts, made.started) == ({}, 0)


async def test_pauses_are_counted_when_they_have_happened():
    async with world() as made:
        sprite = await made.create({"name": "pauses"})
        async with sprite.busy():
            assert made.state()["paused"] == 0
        await sprite.pause()
        await sprite.pause()
        assert made.state()["paused"] == 1
