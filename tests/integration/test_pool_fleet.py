"""Several gateways on one pool, with its records beside what really exists: the maximum, deaths, flushes, and Redis standing still."""
import concurrent.futures
import contextlib
import signal
import threading
import time

import httpx
import pytest

from fleet import PREFIX, Fleet
from rig import SLOWER, until

pytestmark = pytest.mark.timeout(300 * max(1, SLOWER // 2))

SESSION, RECOVERY = 15, 20      # seconds, as in policy/scripts/pool.lua


def many(fleet, count, command="echo done"):
    """Statuses of so many commands, through all gateways at once."""
    def one(number):
        gateway = fleet.gateways[number % len(fleet.gateways)]
        return gateway.exec(token=fleet.tokens[number % len(fleet.tokens)], command=command).status_code
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        return list(pool.map(one, range(count)))


def test_three_gateways_share_one_pool_and_its_maximum(rig):
    fleet = Fleet(rig, pool_max=5, pool_hot=1)
    fleet.until_ready()
    statuses = many(fleet, 60)
    assert set(statuses) <= {200, 503} and statuses.count(200) > 30, statuses
    state = fleet.sprites.state()
    assert state["max_alive"] <= 5 and state["max_alive"] >= 4, state["max_alive"]
    fleet.until_at_rest()
    until(lambda: len({session for _, session in fleet.records().values()}) == 3, lambda: f"each has one: {fleet.records()}")
    until(lambda: fleet.gateways[0].metrics().get("spritegate_pool_fleet_instances") == 3, "it knows of the others")
    assert fleet.gateways[0].metrics().get("spritegate_pool_beat_age_seconds") < 10
    for gateway in fleet.gateways:
        gateway.signal(signal.SIGTERM)
    for gateway in fleet.gateways:
        assert gateway.wait(60) == 0, gateway.log[-2000:]
    assert fleet.sprites.names() == [] and not fleet.records()


def test_no_more_run_than_may_whichever_gateway_has_them(rig):
    """Six are wanted hot and four may run: who finds no place is made way for, a named session too."""
    fleet = Fleet(rig, "--idle-pause", "500ms", pool_max=12, pool_hot=2, pool_running_limit=4, pool_wait_seconds=60, sessions=1)
    until(lambda: fleet.states()["hot"] == 4, lambda: f"as many are hot as may run: {fleet.states()}", 60)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        others = pool.submit(many, fleet, 12, "sleep 0.2")
        counts = [gateway.run("echo >> used; wc -l < used", token=fleet.tokens[0], session="s").stdout for gateway in fleet.gateways]
        statuses = others.result()
    assert counts == ["1\n", "2\n", "3\n"] and statuses.count(200) > 6, (counts, statuses)
    assert 3 <= fleet.sprites.state()["max_running"] <= 4


def test_one_idle_sprite_makes_way_for_one_claim_elsewhere(rig):
    """Two gateways hold all that may run, and nothing runs in them; the third one has a claim."""
    fleet = Fleet(rig, count=1, pool_max=12, pool_hot=2, pool_running_limit=4, pool_wait_seconds=30)
    fleet.until_ready()         # one after the other, so that they do not beat at the same moment
    fleet.gateways.append(fleet.start("g1"))
    fleet.until_ready()
    until(lambda: fleet.states()["hot"] == 4, lambda: f"as many are hot as may run: {fleet.states()}", 60)
    idle = fleet.records()
    assert len({owner for _, owner in idle.values()}) == 2
    third = fleet.start("g2", pool_hot=0)
    began = time.monotonic()
    assert third.exec(token=fleet.tokens[0], command="sleep 6").status_code == 200
    print(f"ended after {time.monotonic() - began:.1f} s, of which it ran 6")
    assert len(idle.keys() & fleet.records().keys()) == 3, (idle, fleet.records())
    assert fleet.sprites.state()["max_running"] == 4


def asleep(fleet):
    """A session that the first gateway has begun, and that was not used for so long that it is paused; its Sprite."""
    fleet.gateways[0].run("echo one >note", session="s")
    [key] = fleet.store.scan_iter("sg:{g}:s:*")
    until(lambda: fleet.store.hget(key, "s").split(":")[1] == "", "it is not in use")
    sprite, lease, used, *rest = fleet.store.hget(key, "s").split(":")
    fleet.store.hset(key, "s", ":".join([sprite, lease, str(int(used) - 200_000), *rest]))
    until(lambda: fleet.store.sismember(PREFIX + "asleep", sprite), "it is known to have no place")
    return sprite


def test_what_idles_makes_way_for_a_session(rig):
    fleet = Fleet(rig, "--idle-pause", "500ms", count=2, pool_hot=1, pool_wait_seconds=60, sessions=1)
    second = fleet.gateways[1]
    asleep(fleet)
    until(lambda: fleet.states()["hot"] == 2, lambda: f"each has one: {fleet.states()}", 60)
    fleet.store.zadd(PREFIX + "limits", {"2": fleet.now_ms() + 120_000})      # as a third one would have told
    [idle] = [name for name, (state, owner) in fleet.records().items() if (state, owner) == ("hot", fleet.session_of(second.instance))]
    fleet.sprites.fault("delete_500", rate=1.0, count=2, match={"sprite": idle})
    assert second.run("cat note", session="s").stdout == "one\n"
    assert idle not in fleet.sprites.names(), "it was woken before that was gone"


def test_a_session_that_waits_for_a_place_is_refused_when_the_pool_stops(rig):
    fleet = Fleet(rig, "--idle-pause", "500ms", count=2, pool_hot=1, pool_wait_seconds=120, sessions=1)
    second = fleet.gateways[1]
    asleep(fleet)
    until(lambda: fleet.states()["hot"] == 2, lambda: f"each has one: {fleet.states()}", 60)
    fleet.sprites.fault("delete_500", rate=1.0)
    fleet.store.zadd(PREFIX + "limits", {"1": fleet.now_ms() + 120_000})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(second.exec, command="cat note", session="s")
        until(lambda: fleet.session_of(second.instance) in fleet.store.zrange(PREFIX + "crowd", 0, -1), "it waits")
        second.signal(signal.SIGTERM)
        assert answer.result(60).json()["detail"] == "The pool refuses."
    fleet.sprites.clear_faults()


def test_who_cannot_know_whether_a_session_may_run_is_not_told_of_a_limit(rig):
    fleet = Fleet(rig, count=2, pool_hot=0, pool_wait_seconds=3, sessions=1)
    asleep(fleet)
    fleet.store.set(PREFIX + "limits", "broken")
    answer = fleet.gateways[1].exec(command="cat note", session="s")
    assert answer.status_code == 503 and answer.json()["detail"] == "Whether the sandbox of this session may run is not known.", answer.text
    fleet.store.delete(PREFIX + "limits")
    assert fleet.gateways[1].run("cat note", session="s").stdout == "one\n"


def test_a_session_that_is_awake_too_late_is_not_kept_awake(rig):
    fleet = Fleet(rig, "--idle-pause", "500ms", count=2, pool_hot=0, pool_wait_seconds=3, sessions=1)
    first, second = fleet.gateways
    sprite = asleep(fleet)
    first.stop()
    until(lambda: fleet.sprites.state()["paused"] == 1, "nobody holds it")
    fleet.sprites.fault("latency", ms=6000, count=1, match={"sprite": sprite})
    assert second.exec(command="cat note", session="s").status_code == 503
    until(lambda: fleet.sprites.state()["paused"] == 2, "it has run, and is paused again", 30)


def test_a_place_is_had_in_turn_by_gateways_with_lasting_queues(rig):
    """Who has it would otherwise take it again and again, since it is told first that it is free."""
    fleet = Fleet(rig, count=2, pool_hot=0, pool_running_limit=1, pool_wait_seconds=60)
    ends, served = threading.Event(), [0, 0]

    def load(at):
        while not ends.is_set():
            fleet.gateways[at].exec(token=fleet.tokens[at], command="sleep 0.1")
            served[at] += 1
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(load, 0) for _ in range(3)]
        try:
            until(lambda: served[0], "the first one goes on", 60)
            loads += [pool.submit(load, 1) for _ in range(3)]
            until(lambda: served[1], lambda: f"the second one is served: {served}", 60)
            before = list(served)
            until(lambda: min(now - then for now, then in zip(served, before)) >= 3, lambda: f"both are: {before}, {served}", 60)
        finally:
            ends.set()
        for one in loads:
            one.result()
    assert fleet.sprites.state()["max_running"] == 1


def test_alone_it_may_have_the_whole_maximum_and_what_another_has_is_missing(rig):
    fleet = Fleet(rig, count=2, pool_max=3, pool_hot=2)
    until(lambda: fleet.states()["hot"] == 3, lambda: f"all are hot: {fleet.states()}")
    assert fleet.sprites.state()["max_alive"] == 3
    time.sleep(2)
    assert fleet.sprites.state()["created"] == 3, "the one that has less wants another, which the maximum forbids"


def test_a_greedy_token_leaves_room_for_one_on_another_gateway(rig):
    """It ends at a half, though nobody else claims where it does."""
    fleet = Fleet(rig, count=2, pool_max=6, pool_hot=1, pool_wait_seconds=60)
    fleet.until_ready()
    here, there = (fleet.session_of(gateway.instance) for gateway in fleet.gateways)
    hog, mouse = fleet.tokens
    ends, codes, held = threading.Event(), [], []

    def nibble():
        while not ends.is_set():
            codes.append(fleet.gateways[1].exec(token=mouse, command="true").status_code)
            held.append(fleet.states(here)["leased"])
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        nibbling = pool.submit(nibble)
        try:
            until(lambda: fleet.store.hget(PREFIX + "want", there), "the other one has said who claims")
            heard = fleet.store.zscore(PREFIX + "ses", here)
            until(lambda: fleet.store.zscore(PREFIX + "ses", here) > heard, "this one has heard it")
            for _ in range(8):
                pool.submit(fleet.gateways[0].exec, token=hog, command="sleep 240", timeout_seconds=250)
            until(lambda: fleet.states(here)["leased"] >= 2, "the greedy one has what it may have", 60)
            served = len(codes)
            until(lambda: len(codes) >= served + 4, lambda: f"the other one is served: {codes[served:]}, {fleet.states(here)}", 60)
        finally:
            ends.set()
            for gateway in fleet.gateways:
                gateway.kill()
        with contextlib.suppress(httpx.TransportError):
            nibbling.result()
    assert set(codes) == {200} and max(held) <= 3, (codes, held)


def test_a_killed_gateway_leaves_nothing(rig):
    fleet = Fleet(rig, pool_max=10, pool_hot=1, pool_warm=2)
    fleet.until_ready()
    until(lambda: fleet.states()["warm"] >= 2, lambda: f"two are parked: {fleet.states()}", 60)
    victim = next(gateway for gateway in fleet.gateways if fleet.states(fleet.session_of(gateway.instance))["warm"])
    session = fleet.session_of(victim.instance)
    running = threading.Thread(target=lambda: pytest.raises(Exception, victim.exec, command="sleep 600"))
    running.start()
    until(lambda: fleet.states(session)["leased"] == 1, "its command runs")
    before = {name: state for name, (state, owner) in fleet.records().items() if owner == session}
    victim.kill()
    died = time.monotonic()
    running.join()
    until(lambda: not any(owner == session for _, owner in fleet.records().values()), "others have adopted all", SESSION + 90)
    adopted = time.monotonic() - died
    assert adopted > SESSION - 6, "as long as its session may live nobody touches what it had"
    for name, state in before.items():
        if state == "warm":
            assert name in fleet.sprites.names(), "what was parked is kept"
    fleet.until_at_rest(120)
    assert not {name for name, state in before.items() if state in ("leased", "hot")} & set(fleet.sprites.names())
    print(f"adopted after {adopted:.1f} s, at rest after {time.monotonic() - died:.1f} s")
    other = next(gateway for gateway in fleet.gateways if gateway is not victim)
    assert other.run("echo well").stdout == "well\n"


def test_what_the_only_one_leaves_the_next_one_removes_whatever_its_name(rig):
    fleet = Fleet(rig, count=1, pool_hot=1, pool_warm=1)
    fleet.until_ready()
    fleet.until_at_rest()
    left = fleet.records()
    fleet.gateways[0].kill()
    fleet.store.zadd(PREFIX + "ses", {fleet.session_of("g0"): 1})     # as 15 s later
    fleet.gateways = [fleet.start("another-machine")]
    hot = [name for name, (state, _) in left.items() if state == "hot"]
    until(lambda: hot and not set(hot) & set(fleet.sprites.names()), lambda: f"{left} is removed: {fleet.records()}", 60)
    fleet.until_ready()
    fleet.until_at_rest()


def test_a_flush_deletes_nothing_in_use_and_creates_nothing_before_a_list(rig):
    fleet = Fleet(rig, count=2, pool_max=8, pool_hot=2)
    fleet.until_ready()
    fleet.until_at_rest()
    hot = set(fleet.sprites.names())
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ends = threading.Event()

        def load(number):
            codes = []
            while not ends.is_set():
                codes.append(fleet.gateways[number % 2].exec(token=fleet.tokens[0], command="sleep 0.2").status_code)
                time.sleep(0.05)
            return codes
        # The tokens are gone with the flush; the commands that run are what it meets.
        loads = [pool.submit(load, number) for number in range(4)]
        until(lambda: fleet.states()["leased"], "commands run")
        fleet.store.flushall()
        flushed = time.monotonic()
        until(lambda: fleet.store.exists(PREFIX + "inc"), "somebody has joined again")
        # What was reserved before may still be created.
        until(lambda: not any(gateway.metrics().get("spritegate_pool_members", state=state) for gateway in fleet.gateways
                              for state in ("intent", "creating")), "nothing is being created")
        created = fleet.sprites.state()["created"]
        ends.set()
        for codes in loads:
            assert set(codes.result()) <= {200, 401, 503}, codes.result()
    while time.monotonic() < flushed + RECOVERY - 1:
        assert fleet.sprites.state()["created"] == created, "created in the recovery"
        time.sleep(0.2)
    assert fleet.sprites.state()["max_alive"] <= 8
    fleet.until_ready(60)
    assert fleet.store.exists(PREFIX + "listed")
    token = rig.mint(fleet.redis)["token"]
    for gateway in fleet.gateways:
        assert gateway.run("echo well", token=token).stdout == "well\n"
    assert fleet.gateways[0].metrics().get("spritegate_pool_sessions_lost_total", reason="flushed") >= 1
    print(f"{len(hot & set(fleet.sprites.names()))} of {len(hot)} hot ones were kept")
    fleet.until_at_rest()


def test_redis_stands_still(rig):
    fleet = Fleet(rig, count=1, pool_hot=2)
    gateway = fleet.gateways[0]
    fleet.until_ready()
    fleet.until_at_rest()
    with fleet.redis.frozen():
        time.sleep(3)
    until(lambda: gateway.exec(command="true").status_code == 200, "it goes on")
    assert gateway.metrics().get("spritegate_pool_sessions_lost_total", reason="fenced") == 0
    fleet.until_ready()
    fleet.until_at_rest()
    with fleet.redis.frozen():
        time.sleep(SESSION + 5)
        assert gateway.metrics().get("spritegate_pool_beat_age_seconds") > 10
    until(lambda: gateway.exec(command="true").status_code == 200, "it begins a new session", 60)
    assert gateway.metrics().get("spritegate_pool_sessions_lost_total", reason="fenced") >= 1
    fleet.until_at_rest()


def test_a_gateway_that_stood_still_finds_its_members_gone(rig):
    fleet = Fleet(rig, count=2, pool_hot=1)
    fleet.until_ready()
    fleet.until_at_rest()
    sleeper, other = fleet.gateways
    session = fleet.session_of(sleeper.instance)
    with sleeper.frozen():
        until(lambda: not any(owner == session for _, owner in fleet.records().values()), "the other has adopted all", SESSION + 90)
    until(lambda: sleeper.metrics().get("spritegate_pool_sessions_lost_total", reason="fenced") >= 1, "it is told")
    until(lambda: sleeper.exec(command="true").status_code == 200, "it begins a new session", 60)
    assert other.exec(command="true").status_code == 200
    fleet.until_ready()
    fleet.until_at_rest()
