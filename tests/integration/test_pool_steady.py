"""A steady load of one command a second is served from the hot pool alone."""
import signal
import time

import pytest

from rig import LIKE_LIVE, SLOWER, slowness


@pytest.mark.alone
@pytest.mark.timeout(900 * max(1, SLOWER // 2))
def test_fifty_commands_at_one_a_second_are_all_hot(rig):
    """With the delays of the real service and the default pool of two."""
    emulator = rig.emulator(*LIKE_LIVE, quick=False)
    gateway = rig.gateway(emulator=emulator, pool_hot=2)
    gateway.until_ready()
    tiers, factors = [], [slowness()]
    for i in range(50):
        began = time.monotonic()
        ran = gateway.run(f"echo {i}")
        assert ran.stdout == f"{i}\n"
        tiers.append(ran.sandbox["tier"])
        factors.append(slowness())      # on a machine that is slow at the moment a second is longer
        time.sleep(max(0, began + max(1, SLOWER // 4) * max(factors[-3:]) - time.monotonic()))
    assert tiers == ["hot"] * 50, f"{tiers.count('hot')} of 50 were hot"
    assert gateway.metrics().get("spritegate_pool_claims_total", tier="hot") == 50
    state = emulator.view.state()
    assert state["started"] >= 50 and max(state["starts"].values()) == 1
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert emulator.view.names() == [], "Sprites are left behind"
