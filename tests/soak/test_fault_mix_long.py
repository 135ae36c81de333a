"""Two thousand commands, and two thousand more with other settings, under a random mix of all faults; SG_FAULT_COMMANDS says how many, SG_SEED which course it takes."""
import os

import pytest

from fault_mix import BY_CHANCE, CHECKS, WITHOUT_OCCASION, mix

COMMANDS = int(os.environ.get("SG_FAULT_COMMANDS", "2000"))

pytestmark = pytest.mark.timeout(COMMANDS * 2 + 600)


@pytest.mark.parametrize("settings", CHECKS.values(), ids=CHECKS)
def test_no_answer_is_wrong(rig, settings):
    outcomes, struck = mix(rig, COMMANDS, int(os.environ.get("SG_SEED", "1")), settings)
    assert {"exited", "unknown", "not_started", "timed_out"} <= set(outcomes), outcomes
    assert {name for name, count in struck.items() if not count} <= WITHOUT_OCCASION | BY_CHANCE, f"these did not strike: {struck}"
