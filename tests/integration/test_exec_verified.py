"""Large output is compared with the record in the Sprite: what the platform loses is fetched, or missed in plain words."""
import pytest

from rig import SLOWER
from test_exec_output import check_cut, numbered

KIB, MIB = 1024, 1024 * 1024
SIZES = [pytest.param(256 * KIB, id="256 KiB"), pytest.param(MIB, id="1 MiB"), pytest.param(4 * MIB, id="4 MiB")]
if SLOWER == 1:
    # With sanitizers the command's own time may be too short for so much.
    SIZES.append(pytest.param(16 * MIB, id="16 MiB"))
PRINT = "import sys; sys.{}.write(''.join(f'{{i:09}}\\n' for i in range({}))[:{}])"


def text(size):
    return numbered(size // 10 + 1)[:size]


def printer(stream, size):
    return ["python3", "-c", PRINT.format(stream, size // 10 + 1, size)]


@pytest.fixture(scope="module")
def verifying(shared_rig):
    """A gateway and an emulator whose streams lose what comes after their first 200,000 bytes."""
    emulator = shared_rig.emulator()
    gateway = shared_rig.gateway(emulator=emulator, pool_hot=2, exec_verify_bytes=64 * KIB)
    gateway.until_ready()
    emulator.view.fault("lose_bytes_above", bytes=200_000)
    gateway.sprites = emulator.view
    return gateway


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_lost_bytes_are_recovered(verifying, stream, size):
    ran = verifying.run(argv=printer(stream, size), max_output_bytes=16 * MIB, timeout_seconds=60)
    assert (ran.outcome, ran.exit_code) == ("exited", 0)
    assert (ran.output_check, ran.recovered) == ("recovered", True)
    assert getattr(ran, f"{stream}_bytes") == size and getattr(ran, f"{stream}_truncated") is False
    assert getattr(ran, stream) == text(size)
    assert ran.stdout_lost_bytes == ran.stderr_lost_bytes == 0
    assert verifying.sprites.starts(ran.exec_id) == 1
    assert verifying.metrics().get("spritegate_exec_output_checks_total", result="recovered") >= 1


def test_a_cut_output_gets_its_head_and_tail_back(verifying):
    """Only what the answer shows is fetched."""
    ran = verifying.run(argv=printer("stdout", 16 * MIB), timeout_seconds=60)
    assert (ran.output_check, ran.recovered) == ("recovered", True)
    assert ran.stdout_bytes == 16 * MIB and ran.stdout_truncated is True
    check_cut(ran.stdout, text(16 * MIB), MIB)


def test_both_streams_at_once(verifying):
    both = f"{PRINT.format('stdout', 30_000, 300_000)}; {PRINT.format('stderr', 40_000, 400_000)}; sys.exit(7)"
    ran = verifying.run(argv=["python3", "-c", both])
    assert (ran.exit_code, ran.output_check) == (7, "recovered")
    assert ran.stdout == text(300_000) and ran.stderr == text(400_000)


def test_partial_output_of_a_command_that_ran_too_long(verifying):
    ran = verifying.run("python3 -c \"" + PRINT.format("stdout", 30_000, 300_000).replace('"', '\\"') + "\"; sleep 60", timeout_seconds=3)
    assert (ran.outcome, ran.output_check) == ("timed_out", "recovered")
    assert ran.stdout == text(300_000)


def test_a_comparison_that_takes_long_goes_on_as_long_as_something_comes(rig):
    """Each of its commands begins to answer after four seconds, and three and more are needed."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    emulator.view.fault("lose_bytes_above", bytes=300_000)
    emulator.view.fault("stall", delay_ms=4000)
    ran = gateway.run(argv=printer("stdout", MIB), timeout_seconds=120)
    assert (ran.output_check, ran.recovered, ran.stdout) == ("recovered", True, text(MIB))


def test_what_cannot_be_fetched_is_said_to_be_lost(verifying):
    """A record that is gone proves nothing; one that the same fault cuts is reported with numbers."""
    ran = verifying.run("python3 -c \"" + PRINT.format("stdout", 30_000, 300_000) + "\"; rm -rf /tmp/.spritegate")
    assert (ran.outcome, ran.exit_code) == ("exited", 0)
    assert (ran.output_check, ran.recovered) == ("failed", False)
    assert ran.stdout == text(200_000)


def test_a_platform_that_loses_nearly_everything(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=1, exec_verify_bytes=1000)
    gateway.until_ready()
    emulator.view.fault("lose_bytes_above", bytes=2000)
    ran = gateway.run(argv=printer("stdout", 10_000))
    assert (ran.output_check, ran.recovered) == ("incomplete", False)
    assert ran.stdout == text(2000)
    assert (ran.stdout_bytes, ran.stdout_truncated, ran.stdout_lost_bytes) == (10_000, True, 8000)


def test_a_record_that_contradicts(verifying):
    """A command may spoil its record: then nothing is claimed."""
    spoil = "; sleep 0.2; head -c 5 /tmp/.spritegate/stdout > /tmp/x; cat /tmp/x > /tmp/.spritegate/stdout"
    ran = verifying.run("python3 -c \"" + PRINT.format("stdout", 10_000, 100_000) + "\"" + spoil)
    assert (ran.exit_code, ran.output_check) == (0, "failed")
    assert ran.stdout == text(100_000)


def test_small_output_is_counted(verifying):
    ran = verifying.run("echo hi")
    assert (ran.stdout, ran.output_check, ran.recovered) == ("hi\n", "counted", False)
    assert verifying.metrics().get("spritegate_exec_output_checks_total", result="counted") >= 1


def test_every_command_is_verified_by_default(stack):
    ran = stack.run(argv=printer("stdout", MIB))
    assert (ran.output_check, ran.recovered, ran.stdout) == ("verified", False, text(MIB))
    assert stack.run(argv=printer("stderr", MIB), max_output_bytes=1000).output_check == "verified"
    assert stack.run(argv=printer("stdout", 255 * KIB)).output_check == "counted"


def test_a_loss_that_leaves_little(rig):
    """However few bytes arrive, they are not as many as the command wrote."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    emulator.view.fault("lose_bytes_above", bytes=1000)
    for size in (1001, 4 * MIB):
        gateway.until_ready()
        ran = gateway.run(argv=printer("stdout", size))
        assert ran.output_check == ("recovered" if ran.stdout_lost_bytes == 0 else "incomplete"), size
        assert ran.stdout_bytes == size


def test_more_than_a_record_holds(verifying, stack):
    """It is counted, and the record does not fill the disk."""
    ran = stack.run("head -c 70000000 /dev/zero; ls -s /tmp/.spritegate/stdout >&2", timeout_seconds=60)
    assert (ran.output_check, ran.stdout_bytes, ran.stdout_lost_bytes) == ("counted", 70_000_000, 0)
    assert ran.stderr == "0 /tmp/.spritegate/stdout\n"
    ran = verifying.run("head -c 70000000 /dev/zero >&2", timeout_seconds=60)
    assert (ran.output_check, ran.stderr_bytes, ran.stderr_lost_bytes) == ("incomplete", 70_000_000, 69_800_000)
    ran = verifying.run("head -c 70000000 /dev/zero", timeout_seconds=60)
    assert (ran.output_check, ran.stdout_bytes) == ("failed", 200_000), "the report is lost as well"


def test_switched_off(rig):
    """Without a record the loss cannot be seen: it is said that nothing is known, and so when it is likely."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, pool_hot=1, exec_verify_bytes=0)
    gateway.until_ready()
    emulator.view.fault("lose_bytes_above", bytes=300_000)
    ran = gateway.run(argv=printer("stdout", 200_000))
    assert (ran.output_check, ran.stdout_bytes) == ("none", 200_000)
    ran = gateway.run(argv=printer("stdout", 600_000))
    assert (ran.output_check, ran.stdout_bytes) == ("unverified", 300_000)
    assert gateway.metrics().get("spritegate_exec_output_checks_total", result="unverified") == 1
    assert gateway.metrics().get("spritegate_exec_output_checks_total", result="none") == 1
    assert gateway.run("ls /tmp/.spritegate").stdout.split() == ["shim", "until"]


# -- the command is as it was without a record


def test_exit_codes_and_signals(verifying):
    for command, code in (("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)):
        ran = verifying.run(command)
        assert (ran.outcome, ran.exit_code, ran.stdout, ran.stderr) == ("exited", code, "", ""), command
    assert verifying.run(argv=["/no/such"]).exit_code == 127


def test_the_command_sees_its_own_streams(verifying):
    ran = verifying.run("cat; [ -p /dev/stdout ] && echo pipe; ls /proc/self/fd | wc -w; echo to stderr >&2; env | grep -c SPRITEGATE_",
                        stdin="from stdin\n")
    assert ran.stdout == "from stdin\npipe\n4\n1\n"
    assert ran.stderr == "to stderr\n"


def test_children_that_keep_the_streams_open(verifying):
    ran = verifying.run("(sleep 300; echo late) & echo now", timeout_seconds=200)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "now\n")
    assert ran.duration_ms < 100_000


def test_term_reaches_the_command(verifying):
    ran = verifying.run("trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done", timeout_seconds=1)
    assert (ran.outcome, ran.stdout) == ("timed_out", "ready\nasked\n")


def test_a_command_that_waits_for_every_child(verifying):
    """The processes that copy are no children of the command."""
    ran = verifying.run(argv=["python3", "-c", "import os\ntry:\n  os.wait()\nexcept ChildProcessError:\n  print('no child')"])
    assert ran.stdout == "no child\n"
