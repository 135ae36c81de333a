"""After 1,000 mixed requests whose clients leave at random moments nothing is left: no Sprite, lease, descriptor, thread or memory."""
import os

import pytest

from rig import LARGER, SLOWER
from storm import MIB, seen, storm, until_quiet

REQUESTS = 1000
HOT = 3

pytestmark = pytest.mark.timeout(900 * max(1, SLOWER // 2))


def test_nothing_is_left_behind(rig, stack):
    emulator = rig.emulator()
    store = rig.redis()
    gateway = rig.gateway(redis=store, emulator=emulator, pool_hot=HOT, pool_max=8, pool_wait_seconds=30, token={"conc": 1000})
    gateway.until_ready()
    seed = os.environ.get("SG_SEED", "1")
    storm(gateway, gateway.token, REQUESTS // 4, seed + " warm-up")
    until_quiet(gateway, emulator, store.client, HOT)
    before = seen(gateway)

    statuses = storm(gateway, gateway.token, REQUESTS, seed)
    assert statuses.get("left", 0) > REQUESTS / 5, f"too few clients left: {statuses}"
    assert statuses.get(200, 0) > REQUESTS / 4, f"too few requests were answered: {statuses}"
    until_quiet(gateway, emulator, store.client, HOT)
    after = seen(gateway)

    assert after["threads"] == before["threads"], f"threads: {before} → {after}"
    assert after["fds"] <= before["fds"] + 2, f"descriptors: {before['fds']} → {after['fds']}: {gateway.descriptors()}"
    assert after["rss"] <= before["rss"] + 16 * MIB * LARGER, f"memory: {before['rss'] / MIB:.1f} → {after['rss'] / MIB:.1f} MiB"
    metrics = gateway.metrics()
    assert metrics.get("spritegate_exec_leases") == 0 and metrics.get("spritegate_exec_leases_reaped_total") == 0
    assert metrics.get("spritegate_pool_members") == HOT
    assert metrics.get("spritegate_pool_members", state="hot") == HOT
    state = emulator.view.state()
    assert state["max_alive"] <= 8, f"{state['max_alive']} Sprites at once, POOL_MAX is 8"
    assert max(state["starts"].values()) == 1, "a command was started twice"
    assert state["created"] - state["destroyed"] == HOT, state
    left = [key for key in store.client.scan_iter("sg:{g}:ac:*")]
    assert not left, f"leases of actors are left: {left}"
