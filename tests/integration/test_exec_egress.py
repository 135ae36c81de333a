"""A token's egress profile: what its commands reach, and that nobody else reaches anything."""
import json

import pytest

from answers import not_started
from rig import leases, until
from test_exec_network import VISIT, greeter
from test_pool_recycle import LIMIT, LIMITED, members, recycling
from wire import Wire, exec_request

CLOSED = [{"domain": "*", "action": "deny"}]
POLICY = "cat /.sprite/policy/network.json"


def allowed(*domains):
    return [*({"domain": domain, "action": "allow"} for domain in domains), *CLOSED]


def rules(ran):
    return json.loads(ran.stdout)["rules"]


def policy_calls(gateway):
    """How often a policy was set, and read back."""
    metrics = gateway.metrics()
    return [metrics.get("spritegate_sprites_calls_total", call=call) for call in ("set_policy", "get_policy")]


@pytest.mark.parametrize("hot", [0, 1])
def test_a_profile_is_in_force_before_the_command_and_for_it_alone(rig, hot):
    with greeter() as (port, greeted):
        emulator = rig.emulator("--resolve", f"open.test=127.0.0.1:{port}", "--resolve", f"other.test=127.0.0.1:{port}")
        gateway = rig.gateway(emulator=emulator, pool_hot=hot)
        if hot:
            gateway.until_ready()
        visitor = rig.mint(egress="open.test")
        visit = ["python3", "-c", VISIT, "open.test:80", "other.test:80", "198.18.0.1:80"]
        ran = gateway.run(argv=visit, token=visitor["token"])
        assert ran.stdout.splitlines()[0].startswith("open.test:80") and "other.test" not in ran.stdout and greeted
        del greeted[:]
        for _ in range(3):      # of the same gateway, and of the same actor
            assert (gateway.run(argv=visit).stdout, greeted) == ("done\n", [])
        assert gateway.run(POLICY, token=visitor["token"]).stdout and rules(gateway.run(POLICY)) == CLOSED


@pytest.mark.parametrize("flag, wanted", [
    ("defaults", [{"include": "defaults"}, *CLOSED]), ("pypi.org,*.pythonhosted.org", allowed("pypi.org", "*.pythonhosted.org")),
    ("defaults,a-1.example.com", [{"include": "defaults"}, *allowed("a-1.example.com")]), ("none", CLOSED), (None, CLOSED)])
def test_profiles(rig, flag, wanted):
    gateway = rig.gateway(emulator=rig.emulator(), token={"egress": flag})
    assert rules(gateway.run(POLICY)) == wanted


def test_a_policy_gives_its_profile_to_its_tokens(rig):
    redis = rig.redis()
    gateway = rig.gateway(redis=redis, emulator=rig.emulator(), token=False)
    token = rig.mint(redis, egress=None)["token"]
    kid = token.split("_")[1]
    redis.client.hset("sg:{g}:p:web", mapping={"ver": 1, "egress": "a.test"})
    redis.client.hset(f"sg:{{g}}:k:{kid}", mapping={"pol": "web"})
    assert rules(gateway.run(POLICY, token=token)) == allowed("a.test")
    redis.client.hset("sg:{g}:p:web", mapping={"ver": 2, "egress": "b.test"})
    assert rules(gateway.run(POLICY, token=token)) == allowed("b.test")
    redis.client.hset(f"sg:{{g}}:k:{kid}", mapping={"egress": ""})
    assert rules(gateway.run(POLICY, token=token)) == CLOSED, "the token's own word wins, also when it is none"


def test_without_a_profile_it_costs_no_call(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=0)
    gateway.run("true")
    before, created = policy_calls(gateway), emulator.view.state()["created"]
    for _ in range(5):
        gateway.run("true")
    made = emulator.view.state()["created"] - created
    assert [now - then for now, then in zip(policy_calls(gateway), before)] == [made, made], "only preparations"
    before, created = policy_calls(gateway), emulator.view.state()["created"]
    gateway.run("true", token=rig.mint(egress="a.test")["token"])
    made = emulator.view.state()["created"] - created
    assert [now - then for now, then in zip(policy_calls(gateway), before)] == [made + 1, made + 1]


@pytest.mark.parametrize("method, what", [("POST", {"name": "http_error", "status": 500}), ("GET", {"name": "http_error", "status": 500}),
                                          ("GET", {"name": "missing_field", "field": "rules"}), ("POST", {"name": "cut_request"}),
                                          ("POST", {"name": "latency", "ms": 60_000})])
def test_a_profile_that_cannot_be_verified_runs_nothing(rig, method, what):
    redis, emulator = rig.redis(), rig.emulator()
    gateway = rig.gateway(redis=redis, emulator=emulator, pool_hot=2, pool_wait_seconds=2, token={"egress": "a.test"})
    gateway.until_ready()
    names = emulator.view.names()
    match = {} if what["name"] == "missing_field" else {"match": {"method": method, "path": "*/policy/network"}}
    emulator.view.fault(**what, **match)
    problem = not_started(gateway.exec(command="true"))
    assert emulator.view.starts(problem["exec_id"]) == 0
    until(lambda: leases(redis.client) == 0, "its lease is given back")
    emulator.view.clear_faults()
    until(lambda: not set(names) & set(emulator.view.names()), "the Sprites that were touched are destroyed")
    assert rules(gateway.run(POLICY)) == allowed("a.test")


def test_a_sprite_that_was_open_is_not_restored(rig):
    emulator = rig.emulator(*LIMITED)
    gateway = recycling(rig, emulator, token={"egress": "a.test"})
    closed = rig.mint()["token"]

    def tried():
        return gateway.metrics().get("spritegate_pool_restores_total")
    for _ in range(LIMIT - 1):
        gateway.run("true", token=closed)
    until(tried, "those that were closed are restored: creations are short")
    until(lambda: members(gateway, "recycling") == 0, "no restore is under way")
    before = tried()
    gateway.run("true")
    until(lambda: members(gateway, "leased") == 0 and members(gateway, "recycling") == 0, "it has gone its way")
    assert tried() == before


def test_leaving_while_the_network_is_opened(rig):
    redis, emulator = rig.redis(), rig.emulator()
    gateway = rig.gateway(redis=redis, emulator=emulator, pool_hot=1, token={"egress": "a.test"})
    gateway.until_ready()
    name, = emulator.view.names()
    emulator.view.fault("latency", ms=3000, match={"method": "POST", "path": "*/policy/network"})
    with Wire(gateway.port) as wire:
        wire.send(exec_request(gateway.token, b'{"command": "true"}'))
        until(lambda: leases(redis.client) == 1 and gateway.metrics().get("spritegate_pool_members", state="leased") == 1, "it has a Sprite")
    until(lambda: leases(redis.client) == 0, "its lease is given back")
    emulator.view.clear_faults()
    until(lambda: name not in emulator.view.names(), "its Sprite is destroyed")
    assert not emulator.view.state()["starts"]
