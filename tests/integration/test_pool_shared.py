"""Several gateways on one pool: what one leaves another adopts or destroys, and all together stay below the maximum."""
import concurrent.futures
import random
import signal
import time
import uuid

import httpx
import pytest

from rig import until

RECOVERY = 60   # seconds: a pool that is new, or was flushed, first finds out for 20 s what exists
ENDED = 45      # a session ends 15 s after its last beat


def members(gateway, state):
    return gateway.metrics().get("spritegate_pool_members", state=state)


def fleet(gateway):
    return gateway.metrics().get("spritegate_pool_fleet_members")


@pytest.fixture
def emulator(rig):
    return rig.emulator("--create-delay", "200ms", "--wake-delay", "100ms", "--idle-pause", "500ms")


@pytest.fixture
def redis(rig):
    return rig.redis()


@pytest.fixture
def share(rig, redis, emulator):
    """One more gateway of the pool."""
    pool = f"p{uuid.uuid4().hex[:12]}"

    def start(**settings):
        return rig.gateway(redis=redis, emulator=emulator, pool_shared=1, pool_name=pool, **settings)
    return start


def test_together_they_stay_below_the_maximum(share, emulator):
    first, second = (share(pool_hot=2, pool_max=3, pool_wait_seconds=20) for _ in range(2))
    until(lambda: emulator.view.alive() == 3, "three are there", RECOVERY)
    until(lambda: fleet(first) == fleet(second) == 3, "both know it")
    for _ in range(4):
        for gateway in first, second:
            assert gateway.run("echo hi").stdout == "hi\n"
    assert emulator.view.state()["max_alive"] <= 3
    assert all(sprite["labels"][1].startswith("pool=p") for sprite in emulator.view.state()["sprites"])


def test_what_one_has_parked_serves_the_other(share, emulator):
    first = share(pool_hot=0, pool_warm=1, pool_max=1)
    until(lambda: members(first, "warm") == 1, "one is parked", RECOVERY)
    [name] = emulator.view.names()
    second = share(pool_hot=0, pool_warm=0, pool_max=1)
    until(lambda: fleet(second) == 1, "the other one knows")
    ran = second.run("hostname")
    assert ran.sandbox["tier"] == "warm"
    assert emulator.view.state()["created"] == 1, f"nothing but {name} was created"


def test_what_a_dead_one_leaves_is_removed(share, emulator):
    first = share(pool_hot=2, pool_max=2)
    until(lambda: members(first, "hot") == 2, "the first one has all", RECOVERY)
    before = set(emulator.view.names())
    second = share(pool_hot=1, pool_max=2, pool_wait_seconds=1)
    until(lambda: fleet(second) == 2, "the second one knows that the pool is full")
    first.kill()
    until(lambda: not before & set(emulator.view.names()), "what the dead one had is gone", ENDED)
    until(lambda: members(second, "hot") == 1, "there is room again")
    assert second.run("echo on").stdout == "on\n"
    assert emulator.view.state()["max_alive"] <= 2


def test_a_flush_loses_nothing_but_what_was_parked(share, redis, emulator):
    first, second = share(pool_hot=1, pool_max=3), share(pool_hot=1, pool_max=3)
    until(lambda: members(first, "hot") == members(second, "hot") == 1, "both have one", RECOVERY)
    before = set(emulator.view.names())
    redis.client.flushall()
    until(lambda: first.metrics().get("spritegate_pool_sessions_lost_total", reason="flushed") >= 1, "it was seen")
    until(lambda: fleet(first) == 2, "both have written again what they have")
    assert set(emulator.view.names()) == before
    until(lambda: not first.metrics().get("spritegate_pool_recovering"), "the pool goes on", RECOVERY)
    assert emulator.view.state()["max_alive"] <= 3


def test_the_later_of_two_with_one_name_goes_on(share, emulator):
    first = share(pool_hot=1, pool_max=4, instance="twin")
    until(lambda: members(first, "hot") == 1, "the first one is full", RECOVERY)
    second = share(pool_hot=1, pool_max=4, instance="twin")
    assert first.wait(60) == 0
    assert "another process runs as instance twin" in first.log
    until(lambda: members(second, "hot") == 1, "the second one is full", RECOVERY)
    until(lambda: emulator.view.alive() == 1, "the first one has removed what it had")


def test_a_stopped_one_hands_out_nothing(share, emulator):
    first = share(pool_hot=1, pool_max=2, pool_wait_seconds=30)
    until(lambda: members(first, "hot") == 1, "one is hot", RECOVERY)
    [name] = emulator.view.names()
    second = share(pool_hot=0, pool_max=2)
    first.signal(signal.SIGSTOP)
    until(lambda: name not in emulator.view.names(), "the other one has removed it", ENDED)
    first.signal(signal.SIGCONT)
    assert first.run("echo again").stdout == "again\n"
    assert first.metrics().get("spritegate_pool_sessions_lost_total", reason="fenced") >= 1
    until(lambda: members(second, "destroying") == 0, "nothing is left to be destroyed")


def test_a_drain_leaves_what_is_parked_to_the_others(share, emulator):
    first = share(pool_hot=0, pool_warm=1, pool_max=2)
    until(lambda: members(first, "warm") == 1, "one is parked", RECOVERY)
    [name] = emulator.view.names()
    second = share(pool_hot=0, pool_warm=1, pool_max=2)
    until(lambda: second.metrics().get("spritegate_pool_fleet_instances") == 2, "they know each other")
    until(lambda: first.metrics().get("spritegate_pool_fleet_instances") == 2, "they know each other")
    first.signal(signal.SIGTERM)
    assert first.wait(40) == 0
    until(lambda: members(second, "warm") == 1, "it was adopted")
    assert emulator.view.names() == [name]


MARK = "cat /tmp/was-here 2>/dev/null; echo $SPRITEGATE_EXEC_ID > /tmp/was-here"


class Fleet:
    """Three gateways of one pool that are killed, stopped and started again while others use them."""

    def __init__(self, share):
        self.share = share
        self.gateways = [self.start(number) for number in range(3)]
        self.ended = False
        self.outcomes = []

    def start(self, number):
        return self.share(pool_hot=1, pool_warm=2, pool_max=5, pool_wait_seconds=5, instance=f"chaos{number}")

    def use(self, number):
        while not self.ended:
            gateway = self.gateways[number]
            try:
                answer = gateway.exec(command=MARK, timeout_seconds=5).json()
            except (OSError, ValueError, httpx.HTTPError):
                time.sleep(0.2)
                continue
            if answer.get("outcome") == "exited":
                # Whoever sees what another command wrote was given a Sprite that had been used.
                assert answer["stdout"] == "", answer
            self.outcomes.append(answer.get("outcome", "refused"))
            time.sleep(0.3)

    def upset(self, dice):
        number = dice.randrange(3)
        gateway = self.gateways[number]
        if dice.random() < 0.5:
            gateway.kill()
            self.gateways[number] = self.start(number)
        else:
            gateway.signal(signal.SIGSTOP)
            time.sleep(dice.uniform(2, 20))
            gateway.signal(signal.SIGCONT)


@pytest.mark.timeout(900)
def test_gateways_that_die_and_stand_still(share, emulator, redis):
    dice = random.Random(7)
    fleet = Fleet(share)
    until(lambda: emulator.view.alive() >= 3, "the pool is filled", RECOVERY)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        users = [pool.submit(fleet.use, number) for number in range(3)]
        try:
            for _ in range(6):
                time.sleep(dice.uniform(1, 4))
                fleet.upset(dice)
            until(lambda: fleet.outcomes.count("exited") > 20 or any(user.done() for user in users),
                  lambda: f"they are served: {fleet.outcomes}", 240)
        finally:
            fleet.ended = True
        for user in users:
            user.result(60)
    assert fleet.outcomes.count("exited") > 20, fleet.outcomes
    assert emulator.view.state()["max_alive"] <= 5

    def is_quiet():
        """Every Sprite has a record, and every record a Sprite, of a gateway that lives."""
        [records] = [key for key in redis.client.scan_iter("sg:{g}:pool:*:m")] or [None]
        return records and set(redis.client.hkeys(records)) == set(emulator.view.names())
    until(is_quiet, "nothing is lost", 240)
    assert emulator.view.state()["max_alive"] <= 5
    until(lambda: emulator.view.alive() == sum(members(gateway, state) for gateway in fleet.gateways for state in ("hot", "warm")),
          "the gateways know all that exists", 60)
