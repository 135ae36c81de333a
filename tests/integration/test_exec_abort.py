"""A client that leaves cancels its command: the process is killed and the lease is free within 100 ms."""
import json
import time

import pytest

from processes import new_mark, running
from rig import SLOWER, check_median, leases, until
from wire import Wire, exec_request

BAR_MS = 100 * SLOWER
marks = iter(new_mark, None)


def begin(gateway, token, **fields):
    wire = Wire(gateway.port)
    wire.send(exec_request(token, json.dumps(fields).encode()))
    return wire


def until_running(mark):
    until(lambda: running(mark), f"the command with {mark} runs", interval=0.005)


def leave(wire, how):
    if how == "reset":
        wire.reset()
    elif how == "half-close":
        import socket
        wire.socket.shutdown(socket.SHUT_WR)
    else:
        wire.close()


@pytest.mark.smoke
@pytest.mark.alone
@pytest.mark.bar
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_process_and_lease_are_gone_within_100_ms(stack, how):
    minted = stack.mint(conc=1)
    lease = f"sg:{{g}}:c:{minted['kid']}"

    def abort():
        """Seconds until both are gone."""
        stack.until_ready()
        mark = next(marks)
        wire = begin(stack, minted["token"], command=f"trap '' TERM HUP; sleep {mark}; sleep {mark}", timeout_seconds=60)
        until_running(mark)
        assert stack.redis.zcard(lease) == 1, "a running command holds no lease"
        left = time.monotonic()
        leave(wire, how)
        until(lambda: not stack.redis.zcard(lease) and not running(mark), "lease and process are gone", interval=0.001)
        took = time.monotonic() - left
        wire.close()
        return took

    check_median(abort, BAR_MS, f"the time from leaving by {how} to the end")


def test_the_next_command_is_admitted(stack):
    """With one command at a time allowed, a client that left does not lock its token."""
    token = stack.mint(conc=1)["token"]
    mark = next(marks)
    wire = begin(stack, token, command=f"sleep {mark}", timeout_seconds=60)
    until_running(mark)
    refused = stack.exec(token=token, command="true")
    assert refused.status_code == 429, "two commands at once with --conc 1"
    wire.close()
    until(lambda: not stack.redis.zcard("sg:{g}:c:" + token[4:20]), "its lease is given back")
    assert stack.run("echo next", token=token).stdout == "next\n"


def test_children_are_killed_too(stack):
    stack.until_ready()
    mark = next(marks)
    wire = begin(stack, stack.token, command=f"(trap '' TERM HUP; setsid sleep {mark} & sleep {mark} & wait) & wait", timeout_seconds=60)
    until(lambda: len(running(mark)) >= 2, "both children run", interval=0.005)
    wire.close()
    until(lambda: not running(mark), "the children are gone")


def test_sandbox_is_destroyed(stack):
    stack.until_ready()
    before = set(stack.sprites.names())
    mark = next(marks)
    wire = begin(stack, stack.token, command=f"sleep {mark}", timeout_seconds=60)
    until_running(mark)
    wire.close()
    until(lambda: len(before - set(stack.sprites.names())) == 1, "the Sprite that was used is destroyed")
    stack.until_ready()


def test_leaving_while_the_answer_is_being_sent(stack):
    """The command has ended; nothing may be left behind or counted twice."""
    wire = Wire(stack.port, receive_buffer=4096)
    wire.send(exec_request(stack.token, json.dumps({"command": "head -c 20000000 /dev/zero | tr '\\0' x",
                                                     "max_output_bytes": 30_000_000}).encode()))
    assert wire.head().status == 200
    wire.reset()
    until(lambda: leases(stack.redis) == 0, "no lease is held")
    assert stack.run("echo ok").stdout == "ok\n"


def test_leaving_while_the_body_is_being_sent(stack):
    before = len(stack.sprites.state()["starts"])
    for cut in (1, 20, 60):
        wire = Wire(stack.port)
        body = json.dumps({"command": "echo " + "x" * 100}).encode()
        request = exec_request(stack.token, body)
        wire.send(request[:-cut])
        time.sleep(0.02)
        wire.reset()
    assert stack.run("echo ok").stdout == "ok\n"
    assert len(stack.sprites.state()["starts"]) == before + 1, "a half request was run"
    until(lambda: leases(stack.redis) == 0, "no lease is held")


def test_leaving_right_after_the_request(stack):
    """In every state between admission and start."""
    for delay in (0, 0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016):
        wire = begin(stack, stack.token, command="sleep 600", timeout_seconds=300)
        time.sleep(delay)
        wire.reset()
    until(lambda: leases(stack.redis) == 0, "no lease is held")
    until(lambda: stack.metrics().get("spritegate_exec_running") == 0, "no command is running")
    stack.until_ready()


def test_leaving_while_waiting_for_a_sandbox(rig):
    """A waiter that left is not given a Sprite."""
    emulator = rig.emulator("--create-delay", "6s")
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_max=1)
    wires = [begin(gateway, gateway.token, command="sleep 600", timeout_seconds=300) for _ in range(5)]
    until(lambda: gateway.metrics().get("spritegate_exec_running") == 5, "five commands wait")
    for wire in wires:
        wire.close()
    until(lambda: leases(rig.stack.redis) == 0, "no lease is held")
    until(lambda: gateway.metrics().get("spritegate_exec_running") == 0, "no command waits")
    emulator.view.until_alive(0)
    assert emulator.view.state()["starts"] == {}, "a command of a client that left was run"


def test_is_logged_as_499(rig):
    gateway = rig.gateway()
    mark = next(marks)
    wire = begin(gateway, gateway.token, command=f"sleep {mark}", timeout_seconds=60)
    until_running(mark)
    wire.close()
    line = gateway.until_logged(lambda line: line.get("route") == "exec", "the aborted command is logged")
    assert line["status"] == 499 and line["aborted"] == "client", line
    until(lambda: gateway.metrics().get("spritegate_exec_total", outcome="canceled") == 1, "it is counted as canceled")
    assert gateway.metrics().get("spritegate_exec_killed_total", reason="client_gone") == 1
    assert gateway.metrics().get("spritegate_http_aborts_total", side="client") == 1


def test_a_client_that_stays_is_not_taken_for_gone(stack):
    """A second, pipelined request is no sign of leaving."""
    wire = begin(stack, stack.token, command="sleep 1; echo one")
    time.sleep(0.2)
    wire.send(exec_request(stack.token, b'{"command": "echo two"}'))
    assert wire.answer().json()["stdout"] == "one\n"
    assert wire.answer().json()["stdout"] == "two\n"
    wire.close()
