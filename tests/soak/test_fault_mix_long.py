"""Two thousand commands under a random mix of all faults; SG_FAULT_COMMANDS says how many, SG_SEED which course it takes."""
import os

import pytest

from fault_mix import WITHOUT_OCCASION, mix

COMMANDS = int(os.environ.get("SG_FAULT_COMMANDS", "2000"))

pytestmark = pytest.mark.timeout(COMMANDS * 2 + 600)


def test_no_answer_is_wrong(rig):
    outcomes, struck = mix(rig, COMMANDS, int(os.environ.get("SG_SEED", "1")))
    assert {"exited", "unknown", "not_started", "timed_out"} <= set(outcomes), outcomes
    assert {name for name, count in struck.items() if not count} <= WITHOUT_OCCASION, f"these did not strike: {struck}"
