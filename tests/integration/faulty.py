"""A gateway with one hot Sprite on an emulator with faults, and what must hold however the Sprites API behaves."""
import pytest

import answers
from rig import leases, until

COMMAND = "echo output; sleep 0.1; exit 7"


@pytest.fixture(scope="module")
def sprites(shared_rig):
    return shared_rig.emulator().view


@pytest.fixture
def gateway(stack, rig, sprites):
    """One for each test: what a fault leaves behind, a drain must remove; the next test meets no back-off."""
    gateway = rig.gateway(emulator=sprites, pool_hot=1, pool_max=4, pool_wait_seconds=4, drain_accept_seconds=0)
    gateway.until_ready()
    sprites.until_waiting(*sprites.names())
    yield gateway
    sprites.clear_faults()
    until(lambda: leases(stack.redis) == 0, "every lease is given back")
    gateway.signal(15)
    assert gateway.wait() == 0, gateway.log[-3000:]
    assert sprites.names() == [], "Sprites are left behind"
    check_starts(sprites)


def check_starts(sprites):
    twice = {exec_id: count for exec_id, count in sprites.state()["starts"].items() if count > 1}
    assert not twice, f"started more than once: {twice}"


STARTS = {"exited": (1,), "timed_out": (1,), "not_started": (0,), "unknown": (0, 1)}


def check_course(sprites, seen, *wanted):
    """Each call ended in one of these outcomes (one text, or several in a set), and what it says of starts is true."""
    outcomes = [outcome for outcome, _ in seen]
    assert len(outcomes) == len(wanted), outcomes
    for outcome, right in zip(outcomes, wanted):
        assert outcome in (right if isinstance(right, set) else {right}), f"{outcomes} instead of {wanted}"
    for outcome, exec_id in seen:
        assert sprites.starts(exec_id) in STARTS[outcome], f"{outcome}, with {sprites.starts(exec_id)} starts of {exec_id}"


def explicit(response, code=7, output="output\n"):
    """The outcome of COMMAND in a world that lies, and its id; an exit code must be the command's own."""
    if response.status_code == 200:
        ran = answers.Ran(response)
        if ran.outcome == "exited":
            assert ran.exit_code == code, f"exit code {ran.exit_code} was never sent"
            assert ran.stdout == output, f"a complete answer without its output: {ran.stdout!r}"
        return ran.outcome, ran.exec_id
    body = answers.unknown(response) if response.status_code == 502 else answers.not_started(response)
    return body["outcome"], body["exec_id"]


def calls(gateway, count, **fields):
    fields = {"command": COMMAND, "timeout_seconds": 20, **fields}
    return [explicit(gateway.exec(**fields)) for _ in range(count)]


def recovers(gateway, sprites):
    """By itself, when the faults are gone."""
    sprites.clear_faults()
    gateway.until_ready(60)
    sprites.until_alive(1, 60)
    ran = gateway.run("echo well; exit 7")
    assert (ran.stdout, ran.exit_code) == ("well\n", 7)
