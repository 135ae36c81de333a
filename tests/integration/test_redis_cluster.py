"""A Redis Cluster: whatever the gateways and the command line write is in one slot of it, so one script may touch it all."""
import pytest

from fleet import POOL, PREFIX
from rig import free_port, until

SLOTS = 16384


@pytest.fixture
def store(rig):
    # Its bus would listen 10,000 ports above, which may be none.
    store = rig.redis("--cluster-enabled", "yes", "--cluster-port", free_port())
    store.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    until(lambda: "cluster_state:ok" in store.client.execute_command("CLUSTER", "INFO"), "the cluster is whole")
    return store


def test_all_keys_are_in_one_slot(rig, store):
    store.client.mset({PREFIX + "inc": "made-by-the-test", PREFIX + "listed": "1"})     # nobody waits for a recovery
    gateway = rig.gateway(redis=store, pool_shared=1, pool_name=POOL, pool_hot=1,
                          token={"budget": "600s/day", "sessions": "2", "actor_rate": "60/1m"})
    gateway.until_ready()
    assert gateway.run("echo one").stdout == "one\n"
    assert gateway.run("echo two", session="s").stdout == "two\n"
    first, again = (gateway.exec(command="echo three", headers={"Idempotency-Key": '"k"'}) for _ in range(2))
    assert first.json()["exec_id"] == again.json()["exec_id"] and again.headers["Idempotency-Replayed"] == "true"
    gateway.until_settled()
    rig.mint(store, actor="bob")
    kinds = {key.split(":")[2] for key in store.client.scan_iter()}
    assert {"k", "b", "t", "x", "i", "s", "ix", "pool"} <= kinds, kinds
    slots = {store.client.execute_command("CLUSTER", "KEYSLOT", key) for key in store.client.scan_iter()}
    assert len(slots) == 1, slots


def test_a_slot_that_is_elsewhere(rig, store):
    """Another server has it now: refused, and well again when it is back."""
    gateway = rig.gateway(redis=store)
    gateway.run("true")
    slot = store.client.execute_command("CLUSTER", "KEYSLOT", "sg:{g}:k:" + gateway.kid)
    store.client.execute_command("CLUSTER", "DELSLOTS", slot)
    until(lambda: "cluster_state:fail" in store.client.execute_command("CLUSTER", "INFO"), "it is gone")
    assert gateway.exec(command="true").status_code == 503
    store.client.execute_command("CLUSTER", "ADDSLOTS", slot)
    until(lambda: gateway.exec(command="true").status_code == 200, "commands run again")
