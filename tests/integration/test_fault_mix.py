"""The short form of tests/soak/test_fault_mix_long.py; SG_SEED chooses another course of it."""
import os

import pytest

from fault_mix import CHECKS, mix
from rig import SLOWER

pytestmark = pytest.mark.timeout(900 * max(1, SLOWER // 2))


@pytest.mark.parametrize("settings", CHECKS.values(), ids=CHECKS)
def test_two_hundred_commands(rig, settings):
    outcomes, struck = mix(rig, 200, int(os.environ.get("SG_SEED", "1")), settings)
    assert outcomes["exited"] >= 50, outcomes
    assert struck["create_hang"], "no creation hung"
    assert sum(count > 0 for count in struck.values()) >= 15, f"few faults struck: {struck}"
