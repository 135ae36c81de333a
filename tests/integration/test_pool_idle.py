"""Sprites that wait for work are kept running, also when an idle socket counts for nothing."""
import time


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
