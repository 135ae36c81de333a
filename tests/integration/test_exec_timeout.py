"""A command that runs too long is ended, and says so with all it printed."""
import pytest

from answers import unknown
from rig import SLOWER


@pytest.mark.smoke
def test_partial_output_is_kept(stack):
    ran = stack.run("echo before; echo problem >&2; sleep 60; echo after", timeout_seconds=2)
    assert (ran.outcome, ran.exit_code, ran.signal) == ("timed_out", None, None)
    assert (ran.stdout, ran.stderr) == ("before\n", "problem\n")
    assert 1900 <= ran.duration_ms <= 30_000 * SLOWER, f"{ran.duration_ms} ms for a timeout of 2 s"


def test_ignoring_term(stack):
    ran = stack.run("trap '' TERM; echo stubborn; while :; do sleep 60; done", timeout_seconds=2)
    assert ran.outcome == "timed_out"
    assert ran.stdout == "stubborn\n"
    assert ran.duration_ms <= 30_000 * SLOWER, f"{ran.duration_ms} ms"


def test_term_comes_first(stack):
    """A command may tidy up; what it prints then is kept."""
    ran = stack.run("trap 'echo tidied; exit 0' TERM; echo begun; while :; do sleep 0.05; done", timeout_seconds=2)
    assert ran.outcome == "timed_out", "the exit status after TERM is not the command's own end"
    assert ran.exit_code is None
    assert ran.stdout == "begun\ntidied\n"


def test_kill_comes_two_seconds_later(stack):
    tells = ("import os, signal, time\n"
             "def tell(word): os.write(1, f'{word} {time.monotonic()}\\n'.encode())\n"
             "signal.signal(signal.SIGTERM, lambda *_: tell('asked'))\n"
             "while True: tell('alive'); time.sleep(0.02)")
    ran = stack.run(argv=["python3", "-c", tells], timeout_seconds=3)
    assert ran.outcome == "timed_out"
    told = [(word, float(at)) for word, at in (line.split() for line in ran.stdout.splitlines())]
    [asked] = [at for word, at in told if word == "asked"]
    assert 1.5 <= told[-1][1] - asked <= 20 * SLOWER, ran.stdout[-500:]


def test_endless_output(stack):
    ran = stack.run("yes", timeout_seconds=1)
    assert ran.outcome == "timed_out"
    assert ran.stdout_truncated is True
    assert ran.stdout_bytes > 1024 * 1024
    assert ran.stdout.startswith("y\ny\n")


def test_waiting_for_a_child(stack):
    ran = stack.run("bash -c 'trap \"\" TERM; sleep 60' & wait", timeout_seconds=1)
    assert ran.outcome == "timed_out"


def test_fractions_of_a_second(stack):
    ran = stack.run("sleep 300", timeout_seconds=1.2)
    assert ran.outcome == "timed_out"
    assert 1200 <= ran.duration_ms <= 20_000 * SLOWER


def test_not_reached(stack):
    ran = stack.run("sleep 0.3; echo done", timeout_seconds=60)
    assert (ran.outcome, ran.stdout) == ("exited", "done\n")


def test_default_and_ceiling_of_the_gateway(rig):
    gateway = rig.gateway(exec_timeout_seconds=2, exec_max_timeout_seconds=4)
    assert gateway.run("echo x; sleep 60").outcome == "timed_out"
    ran = gateway.run("echo x; sleep 60", timeout_seconds=600)
    assert ran.outcome == "timed_out"
    assert 3900 <= ran.duration_ms <= 30_000 * SLOWER, f"{ran.duration_ms} ms for a ceiling of 4 s"


def test_nothing_is_left_of_it(stack):
    """Neither the process nor the sandbox nor the lease."""
    from processes import new_mark, running
    from rig import leases, until
    mark = new_mark()
    assert stack.run(f"trap '' TERM; sleep {mark} & wait", timeout_seconds=5).outcome == "timed_out"
    until(lambda: not running(mark), "the process is gone")
    until(lambda: leases(stack.redis) == 0, "its lease is given back")


def test_a_command_that_was_not_seen_to_start(rig):
    """Without a control socket the handshake is the start: while it is held nothing is known."""
    emulator = rig.emulator()
    emulator.view.fault("false_404", match={"path": "*/control"})
    gateway = rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    emulator.view.fault("latency", ms=10_000, match={"path": "*/exec"})
    unknown(gateway.exec(command="echo hi", timeout_seconds=0.3))
