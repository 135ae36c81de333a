"""Sprites that wait for work are kept running, also when an idle socket counts for nothing."""
import contextlib
import time

import pytest

from rig import until


def test_idle_sprites_stay_running(rig):
    """With the pause of the real service; an idle control socket need not count as activity."""
    emulator = rig.emulator("--idle-pause", "30s", "--control-idle-holds", "false")
    gateway = rig.gateway(emulator=emulator, pool_hot=2)
    gateway.until_ready()
    names = set(emulator.view.names())
    time.sleep(36)
    state = emulator.view.state()
    assert {sprite["name"] for sprite in state["sprites"]} == names, "idle Sprites were replaced"
    assert [sprite["status"] for sprite in state["sprites"]] == ["running", "running"], state
    ran = gateway.run("echo awake")
    assert (ran.stdout, ran.sandbox["tier"]) == ("awake\n", "hot")


@pytest.mark.parametrize("dead, pause, holds, seconds", [(True, "1s", "true", 60), (False, "22s", "false", 150)])
def test_idle_sprites_are_paused_when_nobody_is_there_any_more(rig, dead, pause, holds, seconds):
    """Killed, with Redis; or it stands still with its connections open, as one whose machine has vanished: what waits for a command ends after 90 s."""
    emulator, redis = rig.emulator("--idle-pause", pause, "--control-idle-holds", holds), rig.redis()
    gateway = rig.gateway(emulator=emulator, redis=redis, pool_hot=2)
    gateway.until_ready()
    names = set(emulator.view.names())

    def statuses():
        return {sprite["name"]: sprite["status"] for sprite in emulator.view.state()["sprites"]}
    until(lambda: statuses() == dict.fromkeys(names, "running"), lambda: f"both run: {statuses()}")
    with contextlib.nullcontext() if dead else gateway.frozen():
        if dead:
            gateway.kill()
        redis.kill()
        until(lambda: statuses() == dict.fromkeys(names, "warm"), lambda: f"both are paused: {statuses()}", seconds)
