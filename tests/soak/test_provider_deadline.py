"""A gateway dies under a running command: what the provider ends, without anything of ours (docs/decisions/0014, the deadlines)."""
import json
import time

import pytest

from processes import new_mark, running
from rig import until
from wire import Wire, exec_request

DISCONNECTED_SECONDS = 10   # max_run_after_disconnect, which the gateway leaves as it is


@pytest.mark.parametrize("ahead", [1, 0], ids=["handed over", "started"])
def test_the_command_of_a_dead_gateway_ends(rig, ahead):
    emulator = rig.emulator("--idle-pause", "3s").view
    gateway, mark = rig.gateway(redis=rig.redis(), emulator=emulator, pool_hot=1, pool_ahead=ahead), new_mark()
    gateway.until_ready()
    with Wire(gateway.port) as wire:
        wire.send(exec_request(gateway.token, json.dumps({"command": f"trap '' HUP TERM; sleep {mark}", "timeout_seconds": 250}).encode()))
        until(lambda: running(mark), "it runs")
        gateway.kill()
        died = time.monotonic()
        until(lambda: not running(mark), "the provider has ended it")
        assert time.monotonic() - died > DISCONNECTED_SECONDS - 0.5, "something else has ended it"

    def paused():
        """Its Sprite is warm; the one that was being made beside it may never have run."""
        statuses = {sprite["status"] for sprite in emulator.state()["sprites"]}
        return "warm" in statuses and statuses <= {"warm", "cold"}
    until(paused, lambda: f"its Sprite is paused: {emulator.state()['sprites']}")
