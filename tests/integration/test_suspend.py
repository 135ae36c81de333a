"""A machine that is suspended and resumed: to the gateway time has jumped, its Sprites have paused, and nobody told it."""
import time

from rig import until

ASLEEP = 8      # seconds; longer than Redis' time-out and any kept connection


def test_it_goes_on_where_it_was(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=2)
    gateway.until_ready()
    assert gateway.get("/sample/stations.json").status_code == 200
    with gateway.frozen():
        for name in emulator.view.names():
            emulator.view.pause(name)
        time.sleep(ASLEEP)      # the time itself is what is tested
    assert gateway.get("/sample/stations.json").status_code == 200
    assert gateway.run("echo awake").stdout == "awake\n"
    gateway.until_ready()
    assert gateway.run("echo again").json["sandbox"]["tier"] == "hot"
    gateway.until_ready()
    until(lambda: emulator.view.alive() == 2, "nothing is left over")
