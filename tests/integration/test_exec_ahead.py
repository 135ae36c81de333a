"""In a hot Sprite a program of the gateway's waits for the first command, whose parent it is then."""
import time

import pytest

from rig import until

PARENT = "tr '\\0' ' ' </proc/$PPID/cmdline; grep -c SECRET /proc/$PPID/environ; echo $SECRET"
WAITED = "/tmp/.spritegate shim wait 0\ncaller's\n"


@pytest.fixture(scope="module")
def sprites(shared_rig):
    return shared_rig.emulator().view


@pytest.fixture(scope="module")
def gateway(shared_rig, sprites):
    return shared_rig.gateway(emulator=sprites, pool_hot=1, instance="ahead", token={"sessions": 1})


def run(gateway, **fields):
    return gateway.run(PARENT, env={"SECRET": "caller's"}, **fields).stdout


def next_one(gateway, sprites):
    """Its Sprite that is next."""
    gateway.until_ready()
    [name] = until(lambda: len(names := [name for name in sprites.names() if gateway.instance in name]) == 1 and names, "there is one alone")
    return name


def test_it_knows_of_no_caller(gateway, sprites):
    name = next_one(gateway, sprites)
    sprites.until_waiting(name)
    listed = sprites.http.get(f"/v1/sprites/{name}/exec", headers={"Authorization": f"Bearer {sprites.token}"}).json()
    assert [session["command"] for session in listed["sessions"]] == ["/tmp/.spritegate/shim wait"], listed
    assert run(gateway) == WAITED


def test_it_takes_one_command(gateway, sprites):
    sprites.until_waiting(next_one(gateway, sprites))
    first, second = (run(gateway, session="work") for _ in range(2))
    assert (first, second.startswith("/tmp/.spritegate shim /home/sprite 2 ")) == (WAITED, True), second
    gateway.http.delete("/-/agent/exec/sessions/work", headers={"Authorization": f"Bearer {gateway.token}"})


@pytest.mark.parametrize("settings", [{"pool_ahead": 0}, {"exec_verify_bytes": 0}], ids=str)
def test_nothing_waits(rig, sprites, settings):
    gateway = rig.gateway(emulator=sprites, pool_hot=1, **settings)
    name = next_one(gateway, sprites)
    end = time.monotonic() + 1      # it would have been started at once
    while time.monotonic() < end:
        assert [sprite["waits"] for sprite in sprites.state()["sprites"] if sprite["name"] == name] == [False]
        time.sleep(0.02)
    assert "shim wait" not in run(gateway)
