"""Warm Sprites: claimed at once, replaced in the background, made on demand, never too many, none left behind."""
import concurrent.futures
import json
import time

import pytest

from answers import CAPACITY_TYPE, not_started, problem
from processes import go_on, new_mark
from rig import SLOWER, leases, until


def claims(gateway, tier):
    return gateway.metrics().get("spritegate_pool_claims_total", tier=tier)


def test_default_pool_is_two(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=2)
    gateway.until_ready()
    time.sleep(0.5)
    state = emulator.view.state()
    assert [sprite["status"] for sprite in state["sprites"]] == ["running", "running"], state
    assert state["created"] == 2, f"{state['created']} Sprites were created for a pool of two"
    settings = {key: value for key, value in gateway.settings.items() if key != "SPRITEGATE_POOL_HOT"}
    import subprocess
    import rig as rigs
    shown = subprocess.run([rigs.BINARY, "check-config"], env=rigs.clean_environment(settings), capture_output=True, text=True,
                           timeout=120, check=True).stdout
    assert "pool_hot = 2\n" in shown and "pool_max = 10\n" in shown, shown


def test_names_carry_the_instance(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=2, instance="host-7")
    gateway.until_ready()
    for name in emulator.view.names():
        assert name.startswith("sg-host-7-") and len(name) <= 63, name


@pytest.mark.parametrize("instance", ["Upper_Case.and:more", "a" * 63, "-dash-", "machine.example.org"])
def test_any_instance_name_gives_good_names(rig, instance):
    """The API takes a-z, 0-9 and dashes, at most 63."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=1, instance=instance)
    gateway.until_ready()
    assert gateway.run("echo ok").stdout == "ok\n"


def test_hot_claims_then_refill(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=2)
    gateway.until_ready()
    before = set(emulator.view.names())
    ran = gateway.run("echo one")
    assert ran.sandbox["tier"] == "hot"
    assert ran.timing_ms["claim"] < 2000 * SLOWER, f"a hot claim took {ran.timing_ms['claim']} ms"
    gateway.until_ready()
    until(lambda: len(before & set(emulator.view.names())) == 1, "the used Sprite is destroyed, the other one kept")
    until(lambda: emulator.view.alive() == 2, "the pool is full again")


def test_cold_creation_when_the_pool_is_empty(rig):
    emulator = rig.emulator("--create-delay", "3s")
    gateway = rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    mark = new_mark()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        running = [pool.submit(gateway.run, f"sleep {mark}; echo x", timeout_seconds=200) for _ in range(3)]
        go_on(mark, 3)
        rans = [one.result() for one in running]
    tiers = sorted(ran.sandbox["tier"] for ran in rans)
    assert tiers.count("hot") == 1 and tiers.count("cold") == 2, tiers
    for ran in rans:
        if ran.sandbox["tier"] == "cold":
            assert ran.timing_ms["claim"] >= 300, f"a cold claim took only {ran.timing_ms['claim']} ms"
    assert claims(gateway, "hot") == 1 and claims(gateway, "cold") == 2
    gateway.until_ready()
    emulator.view.until_alive(1)


def test_zero_is_a_size(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=0)
    assert gateway.ready()
    time.sleep(0.5)
    assert emulator.view.state()["created"] == 0, "a Sprite was created for nobody"
    ran = gateway.run("echo x")
    assert (ran.stdout, ran.sandbox["tier"]) == ("x\n", "cold")
    emulator.view.until_alive(0)


def test_never_more_than_pool_max(rig):
    emulator = rig.emulator("--create-delay", "200ms")
    gateway = rig.gateway(emulator=emulator, pool_hot=2, pool_max=4, pool_wait_seconds=60)
    gateway.until_ready()
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        rans = list(pool.map(lambda i: gateway.run(f"sleep 0.1; echo {i}", timeout_seconds=60), range(24)))
    assert [ran.stdout for ran in rans] == [f"{i}\n" for i in range(24)]
    state = emulator.view.state()
    assert state["max_alive"] <= 4, f"{state['max_alive']} Sprites existed at once, POOL_MAX is 4"
    emulator.view.until_alive(2)


def test_no_sandbox_in_time(rig):
    """Waiting is bounded: 503, not started, and a time to come back; the rate that was taken is of no interest, the lease is."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=1, pool_max=1, pool_wait_seconds=1)
    gateway.until_ready()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        mark = new_mark()
        busy = pool.submit(gateway.run, f"sleep {mark}; echo busy", timeout_seconds=200)
        until(lambda: gateway.metrics().get("spritegate_exec_running") == 1, "the only Sprite is in use")
        until(lambda: emulator.view.state()["starts"], "the command runs")
        began = time.monotonic()
        body = not_started(gateway.exec(command="true"), "temporary-reduced-capacity")
        waited = time.monotonic() - began
        assert body["violated-policies"] == ["fleet"] and body["type"] == CAPACITY_TYPE, body
        assert waited < 30 * SLOWER, f"waited {waited:.1f} s with POOL_WAIT_SECONDS=1"
        assert leases(rig.stack.redis) == 1, "a command that was not started holds a lease"
        go_on(mark)
        assert busy.result().stdout == "busy\n"


def test_queue_is_bounded(rig):
    """Whoever cannot be served in time is told so at once; the others are served in order."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=1, pool_max=1, pool_wait_seconds=8, token={"conc": 1000})
    gateway.until_ready()
    with concurrent.futures.ThreadPoolExecutor(150) as pool:
        began = time.monotonic()
        answers = [pool.submit(gateway.exec, command="sleep 0.5") for _ in range(150)]
        done = [answer.result() for answer in answers]
    statuses = [answer.status_code for answer in done]
    assert set(statuses) <= {200, 503}, statuses
    assert statuses.count(503) >= 50, f"150 commands wait for one Sprite, only {statuses.count(503)} were refused"
    assert 200 in statuses
    for answer in done:
        if answer.status_code == 503:
            problem(answer, 503, answer.json()["code"])
            assert answer.json()["code"] == "temporary-reduced-capacity", answer.text
    assert time.monotonic() - began < 200 * SLOWER
    assert emulator.view.state()["max_alive"] == 1
    until(lambda: leases(rig.stack.redis) == 0, "no lease is held")


def test_start_removes_what_an_earlier_run_left(rig):
    emulator = rig.emulator()
    first = rig.gateway(emulator=emulator, pool_hot=2, instance="again")
    first.until_ready()
    left = set(emulator.view.names())
    first.kill()
    emulator.view.create("sg-another-0-instance")
    emulator.view.create("somebody-elses")
    second = rig.gateway(emulator=emulator, pool_hot=2, instance="again")
    second.until_ready()
    until(lambda: not left & set(emulator.view.names()), "the Sprites of the earlier run are destroyed")
    assert {"sg-another-0-instance", "somebody-elses"} <= set(emulator.view.names()), "a Sprite of somebody else was destroyed"
    emulator.view.until_alive(4)
    assert second.run("echo ok").stdout == "ok\n"


def test_another_instance_with_a_longer_name_is_left_alone(rig):
    """`again` is a prefix of `again-2`."""
    emulator = rig.emulator()
    other = rig.gateway(emulator=emulator, pool_hot=2, instance="again-2")
    other.until_ready()
    theirs = set(emulator.view.names())
    mine = rig.gateway(emulator=emulator, pool_hot=1, instance="again")
    mine.until_ready()
    time.sleep(1)
    assert theirs <= set(emulator.view.names()), "Sprites of another instance were destroyed"
    assert other.run("echo ok").sandbox["tier"] == "hot"


def test_idle_for_longer_than_the_pause(rig):
    """A Sprite that waits is kept running; whatever happens to it, a command gets one that works."""
    for flags in ((), ("--control-idle-holds", "false")):
        emulator = rig.emulator("--idle-pause", "3s", *flags)
        gateway = rig.gateway(emulator=emulator, pool_hot=1)
        gateway.until_ready()
        time.sleep(5)
        ran = gateway.run("echo awake")
        assert ran.stdout == "awake\n"


def test_paused_sprites_are_replaced(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=2)
    gateway.until_ready()
    for name in emulator.view.names():
        emulator.view.pause(name)
    ran = gateway.run("echo awake")
    assert ran.stdout == "awake\n"
    gateway.until_ready()
    emulator.view.until_alive(2)
    assert gateway.metrics().get("spritegate_pool_lost_total") >= 1


def test_creation_limit_is_respected(rig):
    """10 a minute: refill waits, and asks no more often than it may."""
    emulator = rig.emulator("--create-limit", "4/10s")
    gateway = rig.gateway(emulator=emulator, pool_hot=1, pool_max=3, pool_wait_seconds=30)
    gateway.until_ready()
    for _ in range(6):
        assert gateway.run("echo x", timeout_seconds=60).stdout == "x\n"
    state = emulator.view.state()
    assert state["created"] >= 6
    assert state["creates_refused"] <= 6, f"{state['creates_refused']} creations were asked for in vain"


def test_wrong_api_token(rig):
    """Nothing can be had: said at once, and Datasette goes on."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, sprites_token="wrong", pool_hot=1, pool_wait_seconds=5)
    body = not_started(gateway.exec(command="true"))
    assert body["code"] == "not-started", body
    assert gateway.get("/sample.json").status_code == 200
    assert emulator.view.state()["created"] == 0
    assert "wrong" not in json.dumps(body)


def test_api_that_is_away(rig):
    """Refused as not started while it is down; well again when it is back."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=1, pool_wait_seconds=3)
    gateway.until_ready()
    with emulator.frozen():
        response = gateway.exec(command="echo x", timeout_seconds=2)
        assert response.status_code in (200, 502, 503), response.text
        if response.status_code == 200:
            assert response.json()["outcome"] == "timed_out", response.text
        assert gateway.get("/-/versions.json").status_code == 200
    gateway.until_ready(60)
    assert gateway.run("echo back").stdout == "back\n"
    emulator.view.until_alive(1, 60)
