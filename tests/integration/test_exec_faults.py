"""Whatever happens to a command's connection: an explicit outcome, never an exit code that nobody sent, no second start, no leak."""
import pytest

import answers
from faulty import COMMAND, calls, check_course, gateway, sprites  # noqa: F401
from rig import SLOWER, until

pytestmark = pytest.mark.timeout(300 * max(1, SLOWER // 2))

ALWAYS = {
    # what strikes every command, and its outcome
    "cut_before_start": ({}, "unknown"),
    "cut_after_start": ({}, "unknown"),
    "cut_before_output": ({}, "unknown"),
    "cut_after_output": ({}, "unknown"),
    "cut_before_exit": ({}, "unknown"),
    "cut_mid_frame": ({}, "unknown"),
    "no_exit_code": ({}, "unknown"),
    "kill_vm": ({}, "unknown"),
    "duplicate_exit": ({"code": 0}, "exited"),
    "slow_drip": ({"bytes": 1}, "exited"),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", ALWAYS)
def test_fault_of_every_command(gateway, sprites, name):
    more, outcome = ALWAYS[name]
    sprites.fault(name, **more)
    # the next Sprite may meet the fault already when it is prepared
    check_course(sprites, calls(gateway, 2), outcome, {outcome, "not_started"})
    assert sprites.hits(name) >= 2


@pytest.mark.parametrize("name", ["cut_before_exit", "cut_after_output", "no_exit_code", "kill_vm"])
def test_unknown_keeps_what_was_received(gateway, sprites, name):
    sprites.fault(name, **({"delay_ms": 3000} if name == "kill_vm" else {}))
    body = answers.unknown(gateway.exec(command="echo received; sleep 0.3; [ %s != kill_vm ] || sleep 30" % name))
    assert body["stdout"] == "received\n" and body["stdout_bytes"] == 9, body
    assert body["encoding"]["stdout"] == "utf-8", body


@pytest.mark.parametrize("name", ["cut_before_start", "cut_before_exit", "no_exit_code", "duplicate_exit"])
def test_one_fault_only(gateway, sprites, name):
    """It costs one command at most, and the next ones nothing."""
    (used,) = until(lambda: len(names := sprites.names()) == 1 and names, "there is one Sprite alone")
    # of this one: the next Sprite is prepared, by a command too, while the first command runs
    sprites.fault(name, count=1, match={"sprite": used})
    check_course(sprites, calls(gateway, 3), "exited" if name == "duplicate_exit" else "unknown", "exited", "exited")
    assert sprites.hits(name) == 1


def test_command_that_was_never_sent_is_tried_elsewhere(gateway, sprites):
    """A Sprite whose socket broke while it waited costs the caller nothing."""
    for name in sprites.names():
        sprites.pause(name)
    ran = gateway.run("echo fine; exit 7")
    assert (ran.stdout, ran.exit_code) == ("fine\n", 7)
    assert sprites.starts(ran.exec_id) == 1


@pytest.mark.parametrize("delay", [0, 20, 50, 150])
def test_pause_under_a_running_command(gateway, sprites, delay):
    [name] = sprites.names()
    sprites.fault("pause_under_socket", on="start", delay_ms=delay, match={"sprite": name})
    check_course(sprites, calls(gateway, 2, command="echo output; sleep 60; exit 7", timeout_seconds=3), "unknown", "timed_out")


def test_pause_as_a_command_ends(gateway, sprites):
    """Either it has told its exit code by then, with all of its output, or nobody knows."""
    seen, used = [], []
    for _ in range(6):
        # Of this one only: on a slow machine no preparation would end before the pause.
        used = until(lambda: len(names := sprites.names()) == 1 and names != used and names, "there is another Sprite alone")
        gateway.until_ready()
        sprites.fault("pause_under_socket", on="start", delay_ms=105, match={"sprite": used[0]})
        seen += calls(gateway, 1)
    check_course(sprites, seen, *[{"exited", "unknown"}] * 6)
    assert sprites.hits("pause_under_socket") >= 1


def test_pause_under_an_idle_socket(gateway, sprites):
    """The one that takes the place of the first Sprite is paused as soon as it is there; no command is lost on it."""
    before = sprites.state()["paused"]
    sprites.fault("pause_under_socket", on="open", delay_ms=30, count=1)
    first = calls(gateway, 1)
    until(lambda: sprites.state()["paused"] > before, "the next Sprite was paused")
    until(lambda: all(sprite["status"] == "running" for sprite in sprites.state()["sprites"]), "it is destroyed or runs again")
    check_course(sprites, first + calls(gateway, 2), "exited", "exited", "exited")


def test_output_that_comes_after_the_text_exit_is_kept(gateway, sprites):
    sprites.fault("early_exit")
    ran = gateway.run("echo one; sleep 0.1; echo two; exit 7")
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 7, "one\ntwo\n")


def test_stalled_answer_is_waited_for(gateway, sprites):
    sprites.fault("stall", delay_ms=1500)
    ran = gateway.run(COMMAND, timeout_seconds=60)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 7, "output\n")


def test_stalled_answer_past_the_timeout(gateway, sprites):
    sprites.fault("stall", delay_ms=60_000)
    # Nothing but its output says that a command has started which something had waited for; fault_table.py has the others.
    check_course(sprites, calls(gateway, 1, timeout_seconds=3), "unknown")


# Of messages and answers. Without `type` no start of a command is understood; without `name` no creation, and without `rules` no policy: then
# there is no second Sprite. The rest decides nothing.
JSON_FIELDS = {"type": ("exited", "not_started"), "name": ("exited", "not_started"), "rules": ("exited", "not_started"),
               **dict.fromkeys(["exit_code", "id", "args", "ok", "exitCode", "status", "session_id"], ("exited", "exited"))}


@pytest.mark.parametrize("name", ["wrong_type", "missing_field"])
@pytest.mark.parametrize("field", JSON_FIELDS)
def test_messages_that_are_not_as_documented(gateway, sprites, name, field):
    sprites.fault(name, field=field)
    check_course(sprites, calls(gateway, 2, timeout_seconds=60), *JSON_FIELDS[field])


@pytest.mark.parametrize("name", ["wrong_type", "missing_field"])
def test_messages_with_random_damage(gateway, sprites, name):
    sprites.fault(name, rate=0.3)
    check_course(sprites, calls(gateway, 8, timeout_seconds=6), *[{"exited", "unknown", "not_started"}] * 8)
    assert sprites.hits(name) >= 8
