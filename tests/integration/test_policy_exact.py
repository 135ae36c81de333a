"""The policy's promises in numbers, through real gateways."""
import collections
import concurrent.futures
import json
import random
import select
import threading
import time

import httpx
import pytest

from answers import Ran, dictionary_of_integers, problem
from policy_store import lease_of
from processes import new_mark, running
from rig import BARS, leases, until
from wire import Wire, exec_request

TRIES = 500
LIMIT = 7


def test_of_500_tries_through_three_gateways_exactly_as_many_as_allowed_run(rig):
    redis, emulator = rig.redis(), rig.emulator()
    gateways = [rig.gateway(redis=redis, emulator=emulator, token=False) for _ in range(3)]
    token = rig.mint(redis, conc=LIMIT, rate="100000/1m", burst=10_000)["token"]
    body = b'{"command": "sleep 600", "timeout_seconds": 120}'
    wires = [Wire(gateways[i % 3].port) for i in range(TRIES)]
    try:
        for wire in wires:
            wire.send(exec_request(token, body))
        poll = select.poll()
        open_ones = {wire.socket.fileno(): wire for wire in wires}
        for number in open_ones:
            poll.register(number, select.POLLIN)
        statuses = collections.Counter()

        def answered():
            for number, _ in poll.poll(100):
                poll.unregister(number)
                answer = open_ones.pop(number).answer()
                assert problem(answer, 429, "quota-exceeded")["violated-policies"] == ["concurrency"]
                statuses[answer.status] += 1
            return statuses[429] == TRIES - LIMIT
        until(answered, lambda: f"all but {LIMIT} are refused: {statuses}", interval=0)
        assert leases(redis.client) == LIMIT == len(open_ones)
        until(lambda: len(emulator.view.state()["starts"]) == LIMIT, "those that are allowed run")
        assert not poll.poll(0)
    finally:
        for wire in wires:
            wire.close()
    until(lambda: leases(redis.client) == 0, "their leases are given back")
    assert len(emulator.view.state()["starts"]) == LIMIT


RUNS = 300 if BARS else 100
BUSY = {"budget": "10h/day", "actor_rate": "100000/1m", "rate": "100000/1m", "burst": 10_000, "conc": 100}


@pytest.mark.bar
def test_one_round_trip_to_admit_and_one_to_settle(rig):
    """All that the gateway's connections send, as Redis itself tells it: two calls of scripts for each command, and what goes on by the clock."""
    redis = rig.redis()
    gateway = rig.gateway(redis=redis, workers=1, pool_hot=4, redis_timeout_ms=10_000, pool_wait_seconds=120, token=BUSY)
    gateway.run("true")     # the scripts are known from now on
    until(lambda: leases(redis.client) == 0, "it is settled")
    with redis.client.monitor() as monitor:
        with concurrent.futures.ThreadPoolExecutor(6) as callers:
            ran = list(callers.map(lambda _: gateway.exec(command="true").status_code, range(RUNS)))
        for _ in range(5):
            problem(gateway.exec(command="true", timeout_seconds=-1), 422, "invalid-request")
        until(lambda: leases(redis.client) == 0, "all are settled")
        redis.client.echo("the end")
        sent = collections.defaultdict(list)
        while (seen := monitor.next_command())["command"] != "ECHO the end":
            if seen["client_type"] != "lua":
                sent[seen["client_port"]].append(seen["command"])
    assert set(ran) == {200}
    ours = {port: commands for port, commands in sent.items()
            if any(command.startswith("EVALSHA") and gateway.kid in command for command in commands)}
    calls = [collections.Counter(command.split()[0].upper() for command in commands) for commands in ours.values()]
    assert [count["EVALSHA"] for count in calls] == [RUNS, RUNS], f"of the worker's connection and of the agent's: {calls}"
    # Beside them: PING of an idle connection, and the question for marks of operators, three times a second at most.
    assert {word for count in calls for word in count} <= {"EVALSHA", "PING", "MGET"}, calls


KILLS = 40 if BARS else 6
IN_A_WEEK_MS = int((time.time() + 7 * 86_400) * 1000)
DOOMED_S = 60       # what each command reserves that is running when its gateway is killed; far longer than it runs


class Account:
    """A token with a budget, what the answers to its commands said, and what Redis has booked, over all days: a test may see midnight."""

    def __init__(self, rig, redis, actor, limit_s):
        minted = rig.mint(redis, actor=actor, budget=f"{limit_s}s/day")
        self.redis, self.token, self.kid, self.actor, self.limit_ms = redis.client, minted["token"], minted["kid"], actor, limit_s * 1000
        self.said, self.lost, self.refused = {}, [], []     # threads add to them

    def call(self, gateway, seconds, command):
        """The status of the answer; None: there was none."""
        try:
            answer = gateway.exec(token=self.token, command=command, timeout_seconds=seconds)
        except httpx.TransportError as failure:
            self.lost.append(failure)
            return None
        if answer.status_code == 429:
            assert problem(answer, 429, "quota-exceeded")["violated-policies"] == ["budget"]
            self.refused.append(answer)
        else:
            self.said[lease_of(Ran(answer).exec_id)] = dictionary_of_integers(answer.headers["Exec-Usage"])["wall_ms"]
        return answer.status_code

    def days(self):
        return [{name: int(value) for name, value in self.redis.hgetall(key).items()} for key in self.redis.keys(f"sg:{{g}}:b:{self.kid}:*")]

    def booked(self, name):
        return sum(day.get(name, 0) for day in self.days())

    def taken(self):
        """On the day on which it is the most."""
        return max((day.get("used", 0) + day.get("held", 0) for day in self.days()), default=0)

    def reserved(self):
        """lease → ms, of those that nobody has settled."""
        return {lease: int(ms) for lease, ms, *_ in (member.split(":") for member in self.redis.zrange(f"sg:{{g}}:c:{self.kid}", 0, -1))}

    def ended(self):
        """lease → ms, of those that were settled, as GET of a command tells; rounded."""
        told = {}
        for key in self.redis.keys("sg:{g}:x:*"):
            kid, _, text = self.redis.get(key).partition(" ")
            if kid == self.kid:
                told[lease_of(key)] = json.loads(text.partition("\n")[2])["duration_ms"]
        return told

    def check(self):
        """Each command is settled with what it used, or not at all; whose answer was lost may be either. How many are not settled."""
        reserved, ended = self.reserved(), self.ended()
        assert not reserved.keys() & ended.keys() and self.said.keys() <= reserved.keys() | ended.keys()
        unheard = [ms for lease, ms in ended.items() if lease not in self.said]
        heard = sum(ms for lease, ms in self.said.items() if lease in ended)
        assert len(unheard) + len(reserved) <= len(self.lost) + len(self.said.keys() & reserved.keys())
        assert 0 <= heard + sum(unheard) - self.booked("used") <= len(unheard)
        assert self.booked("held") == sum(reserved.values()) and self.booked("reqs") == len(reserved) + len(ended)
        return len(reserved)

    def let_end(self, when_ms):
        """The leases that are left."""
        for key in f"sg:{{g}}:c:{self.kid}", f"sg:{{g}}:ac:{self.actor}":
            if left := self.redis.zrange(key, 0, -1):
                self.redis.zadd(key, dict.fromkeys(left, when_ms), xx=True)

    def check_charged_in_full(self, gateway):
        """As if the time of the leases that are left had passed: the next question finds them."""
        used, reserved = self.booked("used"), sum(self.reserved().values())
        self.let_end(1)
        before = sum(self.said.values())
        self.call(gateway, 20, "true")
        gateway.until_settled(self.token)
        assert self.booked("used") == used + reserved + sum(self.said.values()) - before and self.booked("held") == 0


@pytest.mark.bar
def test_a_budget_is_exact_when_gateways_are_killed(rig):
    """`used` is what the answers said, and all that was reserved by those whose gateway was killed; never more than the limit."""
    redis, emulator = rig.redis(), rig.emulator()
    doomed, others = Account(rig, redis, "doomed", KILLS * DOOMED_S), Account(rig, redis, "others", KILLS * 90)

    def start(instance):
        return rig.gateway(redis=redis, emulator=emulator, token=False, instance=f"g{instance}", pool_hot=1, pool_max=20,
                           pool_wait_seconds=120, redis_timeout_ms=10_000)
    gateways, over, most = [start(i) for i in range(3)], threading.Event(), collections.Counter()

    def keep_calling(number):
        rnd = random.Random(number)
        while not over.is_set():
            if others.call(gateways[number % 3], rnd.choice([20, 40, 80]), f"sleep 0.0{rnd.randrange(10)}") != 200:
                time.sleep(0.05)

    def watch():
        while not over.is_set():
            for account in doomed, others:
                most[account] = max(most[account], account.taken())
                most["looks"] += 1
            time.sleep(0.002)

    rnd = random.Random(1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        busy = [pool.submit(watch), *(pool.submit(keep_calling, i) for i in range(6))]
        try:
            for _ in range(KILLS):
                i, mark = rnd.randrange(3), new_mark()
                call = pool.submit(doomed.call, gateways[i], DOOMED_S, f"sleep {mark}")
                until(lambda mark=mark, call=call: running(mark) or call.done(), "it runs")
                time.sleep(rnd.uniform(0, 0.1))     # so that the others are anywhere between their admission and their settlement
                gateways[i].kill()
                assert call.result() is None
                for account in doomed, others:      # none is to end while this runs, however long that takes
                    account.let_end(IN_A_WEEK_MS)
                gateways[i] = start(i)
        finally:
            over.set()
        for each in busy:
            each.result()
    doomed.call(gateways[0], 20, "true")
    assert doomed.refused or len(doomed.days()) > 1, "more than all was given"
    until(lambda: not any(gateway.metrics().get("spritegate_exec_settlements_pending") for gateway in gateways), "the others have settled")
    assert doomed.check() == KILLS and doomed.booked("held") == doomed.limit_ms
    crashed = others.check()
    print(f"{KILLS} killed; {len(others.said)} ran, {len(others.refused)} refused, {crashed} charged in full, at most {most[others]} ms")
    assert len(others.said) > KILLS
    for account in doomed, others:
        account.check_charged_in_full(gateways[0])
        assert max(most[account], account.taken()) <= account.limit_ms and most["looks"] > 50
    assert leases(redis.client) == 0
