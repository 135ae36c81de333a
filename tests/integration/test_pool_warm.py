"""The paused tier: woken for whoever claims, before a claim that is announced, and never without its network closed."""
import concurrent.futures
import http.client
import json
import urllib.parse

import pytest

from rig import until

PAUSING = ("--idle-pause", "500ms", "--create-delay", "300ms", "--wake-delay", "100ms")


def members(gateway, state):
    return gateway.metrics().get("spritegate_pool_members", state=state)


def statuses(emulator):
    return sorted(sprite["status"] for sprite in emulator.view.state()["sprites"])


def paused(emulator, count):
    until(lambda: statuses(emulator) == ["warm"] * count, f"{count} Sprites are there, and paused")


@pytest.fixture
def emulator(rig):
    return rig.emulator(*PAUSING)


def test_warm_members_are_prepared_and_paused(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=2)
    paused(emulator, 2)
    before = set(emulator.view.names())
    ran = gateway.run("echo woken")
    assert (ran.stdout, ran.sandbox["tier"]) == ("woken\n", "warm")
    metrics = gateway.metrics()
    assert metrics.get("spritegate_pool_claims_total", tier="warm") == 1
    assert metrics.get("spritegate_pool_wakes_total", result="ok") == 1
    until(lambda: members(gateway, "warm") == 2 and members(gateway, "destroying") == 0, "the stock is whole again")
    paused(emulator, 2)
    assert len(before & set(emulator.view.names())) == 1, "the used Sprite is gone, the other one is kept"


def test_a_hot_member_is_replaced_by_a_wake(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=1, pool_warm=1)
    until(lambda: members(gateway, "hot") == 1 and members(gateway, "warm") == 1, "both tiers are full")
    until(lambda: statuses(emulator) == ["running", "warm"], "only one of them runs")
    assert gateway.run("true").sandbox["tier"] == "hot"
    until(lambda: members(gateway, "hot") == 1 and members(gateway, "warm") == 1, "both tiers are full again")
    assert gateway.metrics().get("spritegate_pool_wakes_total", result="ok") == 1


def test_a_limit_that_the_list_tells_is_kept_to(rig):
    """Two are wanted and one may run: nothing that would be refused is asked for."""
    emulator = rig.emulator(*PAUSING, "--running-limit", "1")
    gateway = rig.gateway(emulator=emulator, pool_hot=2, pool_warm=0)
    for _ in range(2):
        until(lambda: members(gateway, "hot") == 1, "the one that may run is ready")
        assert gateway.run("true").sandbox["tier"] == "hot"
    state = emulator.view.state()
    assert (state["creates_refused"], state["max_running"], state["max_alive"]) == (0, 1, 1)
    assert not gateway.metrics().get("spritegate_pool_wakes_total", result="capacity")


def test_a_wake_that_may_not_run_loses_nothing(rig):
    """One Sprite may run, and no list has said so. The wake of another is refused: it keeps its place, and serves when it may."""
    emulator = rig.emulator(*PAUSING, "--running-limit", "1", "--list-counters", "false")
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=2)
    paused(emulator, 2)
    names = set(emulator.view.names())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.run, "sleep 2; echo first", timeout_seconds=30)
        until(lambda: emulator.view.state()["starts"], "the first command runs")
        assert gateway.run("echo second").stdout == "second\n"
        assert first.result().stdout == "first\n"
    metrics, state = gateway.metrics(), emulator.view.state()
    assert metrics.get("spritegate_pool_wakes_total", result="capacity") == 1, "asked again before the time that was said"
    assert metrics.get("spritegate_pool_wakes_total", result="ok") == 2
    assert state["max_running"] == 1
    assert metrics.get("spritegate_pool_claims_total", tier="warm") == 2, "the Sprite whose wake was refused was not used"
    until(lambda: not names & set(emulator.view.names()), "both of the first two were used")


def test_a_page_of_the_agent_wakes_one(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=1)
    paused(emulator, 1)
    gateway.get("/-/agents", headers={"Cookie": "ds_actor=x"})
    gateway.get("/")
    gateway.get("/-/agent/01M80PFX7C9FH8PH9HZBBVVV17")      # of nobody who could have a command run
    assert members(gateway, "warm") == 1
    gateway.get("/-/agent/01M80PFX7C9FH8PH9HZBBVVV17", headers={"Cookie": "ds_actor=x"})
    until(lambda: members(gateway, "hot") == 1, "the paused Sprite is woken")
    assert emulator.view.state()["created"] == 1, "a page had a Sprite created"
    assert gateway.run("true").sandbox["tier"] == "hot"


def test_the_head_of_a_command_wakes_one(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=1)
    paused(emulator, 1)
    body = json.dumps({"command": "echo in time"}).encode()
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(gateway.url).netloc, timeout=30)
    connection.putrequest("POST", "/-/agent/exec")
    for name, value in (("Authorization", f"Bearer {gateway.token}"), ("Content-Type", "application/json"), ("Content-Length", len(body))):
        connection.putheader(name, value)
    connection.endheaders()
    until(lambda: members(gateway, "hot") == 1, "the paused Sprite is woken before the body is there")
    connection.send(body)
    answer = json.loads(connection.getresponse().read())
    assert (answer["stdout"], answer["sandbox"]["tier"]) == ("in time\n", "hot"), answer


def test_without_a_token_nothing_is_woken(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=1)
    paused(emulator, 1)
    assert gateway.exec(token="sgt_wrong", command="true").status_code == 401
    assert members(gateway, "warm") == 1 and statuses(emulator) == ["warm"]


def test_auto_keeps_nothing_running_without_demand(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot="auto", pool_warm="auto")
    paused(emulator, 1)
    metrics = gateway.metrics()
    assert metrics.get("spritegate_pool_target", tier="hot") == 0 and metrics.get("spritegate_pool_target", tier="warm") == 1
    assert gateway.run("true").sandbox["tier"] == "warm"
    until(lambda: gateway.metrics().get("spritegate_pool_target", tier="hot") >= 1, "demand is worth a running Sprite")
    until(lambda: members(gateway, "hot") >= 1, "one is hot")
    assert gateway.run("true").sandbox["tier"] == "hot"


def test_what_somebody_opened_meanwhile_is_closed_again(rig, emulator):
    """A wake reads the network policy back; a Sprite whose policy is not as it was set is prepared from the beginning."""
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=1)
    paused(emulator, 1)
    [name] = emulator.view.names()
    opened = emulator.view.http.post(f"/v1/sprites/{name}/policy/network", json={"rules": [{"action": "allow", "domain": "*"}]},
                                     headers={"Authorization": f"Bearer {emulator.token}"})
    assert opened.status_code == 204, opened.text
    ran = gateway.run("sleep 1; echo closed", timeout_seconds=20)
    assert ran.stdout == "closed\n"
    metrics = gateway.metrics()
    assert metrics.get("spritegate_pool_wakes_total", result="policy") == 1
    assert metrics.get("spritegate_pool_claims_total", tier="warm") == 0, "it was handed out as it was"


def test_what_cannot_be_verified_is_not_handed_out(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=1, pool_wait_seconds=3)
    paused(emulator, 1)
    emulator.view.fault("missing_field", field="rules")
    answer = gateway.exec(command="true")
    assert answer.status_code == 503, answer.text
    assert emulator.view.state()["starts"] == {}
    assert gateway.metrics().get("spritegate_pool_wakes_total", result="policy") == 1
