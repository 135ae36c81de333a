"""The record in the Sprite counts only when its recorder finished it: a full disk or a killed recorder leaves none."""
import os

import pytest

from answers import problem
from test_exec_output import numbered

SIZE = 700_000
# a disk with room for more than arrives where streams lose bytes, and less than what is printed
FILL = "head -c 600000 /dev/zero >/tmp/spare; cat /dev/zero >/tmp/full 2>/dev/null; rm /tmp/spare; "
PRINT = f"seq -f %09.0f 0 {SIZE // 10 - 1}"
RECORDER = "read -r recorder rest </proc/$PPID/task/$PPID/children; "  # the first child of the shim


@pytest.fixture(scope="module")
def gateway(shared_rig):
    emulator = shared_rig.emulator(disk="size=8m")
    gateway = shared_rig.gateway(emulator=emulator)
    gateway.sprites = emulator.view
    return gateway


@pytest.fixture
def small_disk(gateway):
    """It has place, since no Sprite is left that filled it; the next one is made for the next command."""
    gateway.sprites.until_alive(0)
    return gateway


@pytest.fixture
def losing(small_disk):
    """Its streams lose what comes after 524,288 bytes."""
    small_disk.sprites.fault("lose_bytes_above", bytes=524_288)
    yield small_disk
    small_disk.sprites.clear_faults()


def test_a_full_disk_and_a_report_that_is_lost(losing):
    """It is not known how much the command wrote."""
    ran = losing.run(FILL + PRINT)
    assert (ran.outcome, ran.exit_code, ran.output_check, ran.recovered) == ("exited", 0, "failed", False)
    assert ran.stdout == numbered(SIZE // 10)[:524_288]


def test_a_full_disk_and_a_report_that_arrives(losing):
    """It is known how much is missing."""
    ran = losing.run(FILL + PRINT + " >&2")
    assert (ran.outcome, ran.exit_code, ran.output_check, ran.recovered) == ("exited", 0, "incomplete", False)
    assert ran.stderr == numbered(SIZE // 10)[:524_288]
    assert (ran.stderr_bytes, ran.stderr_truncated, ran.stderr_lost_bytes) == (SIZE, True, SIZE - 524_288)
    assert (ran.stdout_truncated, ran.stdout_lost_bytes) == (False, 0)


def test_a_full_disk_and_nothing_lost(small_disk):
    ran = small_disk.run(FILL + PRINT)
    assert (ran.output_check, ran.stdout) == ("failed", numbered(SIZE // 10))


def test_a_full_disk_and_little_output(small_disk):
    ran = small_disk.run(FILL + "cat /dev/zero >/tmp/rest 2>/dev/null; echo hi")
    assert (ran.output_check, ran.stdout) == ("counted", "hi\n")


def test_a_recorder_that_is_killed(small_disk):
    """What it had passed on is as its record has it, and may be less than was written."""
    passed_on = f"until [ $(stat -c %s /tmp/.spritegate/stdout) = {SIZE} ]; do sleep 0.01; done; "
    ran = small_disk.run(RECORDER + PRINT + f"; {passed_on} kill -STOP $recorder; echo more; kill -KILL $recorder; exit 0")
    assert (ran.outcome, ran.exit_code, ran.output_check, ran.recovered) == ("exited", 0, "failed", False)
    assert ran.stdout == numbered(SIZE // 10)


# -- Sprites that cannot keep a record: the command runs all the same, and nothing is claimed


def check_without_record(gateway, emulator):
    gateway.until_ready()
    ran = gateway.run("echo hi; exit 7")
    assert (ran.exit_code, ran.stdout, ran.output_check) == (7, "hi\n", "none")
    assert "the shim cannot be run there" in gateway.log
    gateway.until_ready()
    emulator.view.fault("lose_bytes_above", bytes=300_000)
    ran = gateway.run(PRINT)
    assert (ran.exit_code, ran.stdout, ran.output_check) == (0, numbered(SIZE // 10)[:300_000], "unverified")


def test_a_tmp_that_forbids_programs(rig):
    emulator = rig.emulator(disk="size=8m,noexec")
    check_without_record(rig.gateway(emulator=emulator, pool_hot=1), emulator)


def test_no_command_without_its_limits(rig):
    """Where nobody can set them it is not started."""
    gateway = rig.gateway(emulator=rig.emulator(disk="size=8m,noexec"), exec_max_processes=100)
    body = problem(gateway.exec(command="echo hi"), 503, "not-started")
    assert body["may_have_run"] is False and "has no limits" in body["detail"], body


def test_a_disk_that_is_full_when_the_shim_is_brought(rig):
    emulator = rig.emulator(disk="size=8m")
    free = 36 * 1024    # for what describes a Sprite, not for the shim
    with open(f"/proc/{emulator.pid}/root/mnt/full", "wb", buffering=0) as full:
        disk = os.statvfs(full.fileno())
        full.write(bytes(disk.f_bavail * disk.f_frsize - free))
    check_without_record(rig.gateway(emulator=emulator, pool_hot=1), emulator)


@pytest.mark.parametrize("fault", ["lose_input_above", "lose_bytes_above"])
@pytest.mark.parametrize(("times", "check"), [(1, "counted"), (2, "none")])
def test_a_shim_that_was_lost_is_brought_once_more(rig, fault, times, check):
    """It did not arrive whole, so its digest is wrong; or what it says was lost."""
    emulator = rig.emulator()
    emulator.view.fault(fault, bytes=3, count=times)
    gateway = rig.gateway(emulator=emulator, pool_hot=1)
    gateway.until_ready()
    emulator.view.clear_faults()
    assert gateway.run("echo hi").output_check == check
    assert ("the shim cannot be run there" in gateway.log) == (times == 2)
