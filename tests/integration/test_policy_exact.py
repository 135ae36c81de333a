"""The policy's promises in numbers, through real gateways."""
import collections
import concurrent.futures
import select

import pytest

from answers import problem
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
