"""The Sprites API with every habit that was recorded of the live service and that the emulator has as a switch, off by default."""
import pytest

from rig import until

RECORDED = ("--live-op-complete", "--has-more-always", "--missing-500", "--exit-tail", "5s", "--live-fs", "--control-idle-holds", "false")


@pytest.fixture
def emulator(rig):
    return rig.emulator(*RECORDED, "--checkpoint-delay", "50ms", "--restore-delay", "50ms")


def delete(sprites, name):
    """Behind the gateway's back."""
    answer = sprites.http.delete(f"/v1/sprites/{name}", headers={"Authorization": f"Bearer {sprites.token}"})
    assert answer.status_code == 204, answer.text


def check_commands(gateway):
    for code in (0, 1, 42, 255):
        ran = gateway.run(f"echo out; echo err >&2; exit {code}")
        assert (ran.outcome, ran.exit_code, ran.stdout, ran.stderr) == ("exited", code, "out\n", "err\n")


def leaves_nothing(gateway, sprites):
    gateway.signal(15)
    assert gateway.wait(30) == 0, gateway.log[-3000:]
    assert [name for name in sprites.names() if gateway.instance in name] == [], "Sprites are left behind"


def test_exit_codes_and_deletions(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=2)
    gateway.until_ready()
    check_commands(gateway)
    gateway.until_ready()
    leaves_nothing(gateway, emulator.view)


def test_a_socket_that_stays_open_after_the_exit_holds_nobody_up(rig, emulator):
    """Without /control each command has a socket of its own, which the service closes seconds later."""
    emulator.view.fault("false_404", match={"path": "*/control"})
    gateway = rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    check_commands(gateway)
    assert gateway.run("echo fast").json["timing_ms"]["exec"] < 4000
    leaves_nothing(gateway, emulator.view)


def test_sprites_that_somebody_else_deleted(rig, emulator):
    """Each lookup and each deletion is answered 500; the list, which says that it goes on, ends all the same."""
    gateway = rig.gateway(emulator=emulator, pool_hot=2)
    gateway.until_ready()
    first = emulator.view.names()
    for name in first:
        delete(emulator.view, name)
    until(lambda: len(set(emulator.view.names()) - set(first)) == 2, "they are replaced")
    gateway.until_ready()
    assert gateway.run("echo well").stdout == "well\n"
    until(lambda: gateway.metrics().get("spritegate_pool_members", state="destroying") == 0, "nothing is left to be destroyed")
    leaves_nothing(gateway, emulator.view)


def test_what_an_earlier_run_left_is_found_on_a_list_without_an_end(rig, emulator):
    first = rig.gateway(emulator=emulator, pool_hot=2, instance="again-recorded")
    first.until_ready()
    left = set(emulator.view.names())
    first.kill()
    second = rig.gateway(emulator=emulator, pool_hot=1, instance="again-recorded")
    second.until_ready()
    until(lambda: not left & set(emulator.view.names()), "the Sprites of the earlier run are destroyed")
    leaves_nothing(second, emulator.view)


def test_restores(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=1, pool_creates_per_minute=4, pool_recycle=1, pool_wait_seconds=15)
    until(lambda: gateway.metrics().get("spritegate_pool_members", state="warm") == 1, "one is prepared")
    for _ in range(6):
        assert gateway.run("ls -A ~ | grep -c mine; touch ~/mine").stdout == "0\n"
    assert gateway.metrics().get("spritegate_pool_restores_total", result="ok") >= 1
    leaves_nothing(gateway, emulator.view)
