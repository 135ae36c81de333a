"""The short form of tests/soak/test_fault_mix_long.py; SG_SEED chooses another course of it."""
import os

import pytest

from fault_mix import mix
from rig import SLOWER

pytestmark = pytest.mark.timeout(300 * max(1, SLOWER // 2))


def test_two_hundred_commands(rig):
    outcomes, struck = mix(rig, 200, int(os.environ.get("SG_SEED", "1")))
    assert outcomes["exited"] >= 50, outcomes
    assert sum(count > 0 for count in struck.values()) >= 15, f"few faults struck: {struck}"
