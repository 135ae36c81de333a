"""The policy's promises in numbers, through real gateways."""
import collections
import select

from answers import problem
from rig import leases, until
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


def test_one_round_trip_to_admit_and_one_to_settle(rig):
    """What Redis is asked about the token, as Redis itself tells it."""
    redis = rig.redis()
    gateway = rig.gateway(redis=redis, workers=1, token={"budget": "1h/day", "actor_rate": "1000/1m"})
    gateway.run("true")     # the scripts are known from now on
    until(lambda: leases(redis.client) == 0, "it is settled")
    with redis.client.monitor() as monitor:
        for _ in range(10):
            gateway.run("true")
            until(lambda: leases(redis.client) == 0, "it is settled")
        for _ in range(5):
            problem(gateway.exec(command="true", timeout_seconds=-1), 422, "invalid-request")
        redis.client.echo("the end")
        commands = []
        while (seen := monitor.next_command())["command"] != "ECHO the end":
            if seen["client_type"] != "lua" and f"sg:{{g}}:k:{gateway.kid}" in seen["command"]:
                commands.append(seen["command"].split()[0].upper())
    assert commands == ["EVALSHA"] * 20
