"""Whatever happens to a command's connection: an explicit outcome, never an exit code that nobody sent, no second start, no leak."""
import pytest

import answers
from faulty import COMMAND, calls, explicit, gateway, sprites  # noqa: F401
from rig import SLOWER

pytestmark = pytest.mark.timeout(120 * max(1, SLOWER // 2))

ALWAYS = {
    # what strikes every command, and which outcomes are right
    "cut_before_start": ({}, {"not_started", "unknown"}),
    "cut_after_start": ({}, {"not_started", "unknown"}),
    "cut_before_output": ({}, {"unknown"}),
    "cut_after_output": ({}, {"unknown"}),
    "cut_before_exit": ({}, {"unknown"}),
    "cut_mid_frame": ({}, {"unknown"}),
    "no_exit_code": ({}, {"unknown"}),
    "kill_vm": ({}, {"unknown"}),
    "duplicate_exit": ({"code": 0}, {"exited"}),
    "slow_drip": ({"bytes": 1}, {"exited"}),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", ALWAYS)
def test_fault_of_every_command(gateway, sprites, name):
    more, outcomes = ALWAYS[name]
    sprites.fault(name, **more)
    for i, (outcome, exec_id) in enumerate(calls(gateway, 2)):
        # the next Sprite may meet the fault already when it is prepared
        assert outcome in outcomes or (i and outcome == "not_started"), f"{name}: {outcome}"
        assert sprites.starts(exec_id) <= 1, f"{name}: {exec_id} was started more than once"
        if outcome == "not_started":
            assert sprites.starts(exec_id) == 0, "not_started, yet it was started"


@pytest.mark.parametrize("name", ["cut_before_exit", "cut_after_output", "no_exit_code", "kill_vm"])
def test_unknown_keeps_what_was_received(gateway, sprites, name):
    sprites.fault(name, **({"delay_ms": 600} if name == "kill_vm" else {}))
    body = answers.unknown(gateway.exec(command="echo received; sleep 0.3; [ %s != kill_vm ] || sleep 30" % name))
    assert body["stdout"] == "received\n" and body["stdout_bytes"] == 9, body
    assert body["encoding"]["stdout"] == "utf-8", body


@pytest.mark.parametrize("name", ["cut_before_start", "cut_before_exit", "no_exit_code", "duplicate_exit"])
def test_one_fault_only(gateway, sprites, name):
    sprites.fault(name, count=1)
    for outcome, exec_id in calls(gateway, 3):
        assert sprites.starts(exec_id) <= 1
        assert outcome in ("exited", "unknown", "not_started")


def test_command_that_was_never_sent_is_tried_elsewhere(gateway, sprites):
    """A Sprite whose socket broke while it waited costs the caller nothing."""
    for name in sprites.names():
        sprites.pause(name)
    ran = gateway.run("echo fine; exit 7")
    assert (ran.stdout, ran.exit_code) == ("fine\n", 7)
    assert sprites.starts(ran.exec_id) == 1


@pytest.mark.parametrize("delay", [0, 20, 50, 150])
def test_pause_under_a_running_command(gateway, sprites, delay):
    sprites.fault("pause_under_socket", on="start", delay_ms=delay)
    for outcome, exec_id in calls(gateway, 2):
        assert outcome in ("unknown", "not_started", "exited"), outcome
        assert sprites.starts(exec_id) <= 1


def test_pause_under_an_idle_socket(gateway, sprites):
    sprites.fault("pause_under_socket", on="open", delay_ms=30, count=4)
    for outcome, exec_id in calls(gateway, 4):
        assert sprites.starts(exec_id) <= 1, outcome


def test_output_that_comes_after_the_text_exit_is_kept(gateway, sprites):
    sprites.fault("early_exit")
    ran = gateway.run("echo one; sleep 0.1; echo two; exit 7")
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 7, "one\ntwo\n")


def test_stalled_answer_is_waited_for(gateway, sprites):
    sprites.fault("stall", delay_ms=1500)
    ran = gateway.run(COMMAND, timeout_seconds=20)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 7, "output\n")


def test_stalled_answer_past_the_timeout(gateway, sprites):
    sprites.fault("stall", delay_ms=60_000)
    response = gateway.exec(command=COMMAND, timeout_seconds=1)
    outcome, exec_id = explicit(response)
    assert outcome in ("timed_out", "unknown"), outcome
    assert sprites.starts(exec_id) == 1


JSON_FIELDS = ["type", "exit_code", "id", "args", "ok", "exitCode", "name", "status", "rules", "session_id"]


@pytest.mark.parametrize("name", ["wrong_type", "missing_field"])
@pytest.mark.parametrize("field", JSON_FIELDS)
def test_messages_that_are_not_as_documented(gateway, sprites, name, field):
    sprites.fault(name, field=field)
    for outcome, exec_id in calls(gateway, 2, timeout_seconds=3):
        assert outcome in ("exited", "unknown", "not_started", "timed_out")
        assert sprites.starts(exec_id) <= 1


@pytest.mark.parametrize("name", ["wrong_type", "missing_field"])
def test_messages_with_random_damage(gateway, sprites, name):
    sprites.fault(name, rate=0.3)
    for _, exec_id in calls(gateway, 8, timeout_seconds=3):
        assert sprites.starts(exec_id) <= 1
