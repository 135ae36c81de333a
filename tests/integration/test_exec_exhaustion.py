"""Commands that take all they can get: processes, disk, output. Each has a clear outcome, its Sprite is destroyed, the next one runs."""
import resource

import pytest

from processes import new_mark, running
from rig import until
from test_policy_limits import cli

MIB = 1024 * 1024
marks = iter(new_mark, None)
# As many processes as it may have, for ever; each has the mark as an argument. How many is the gateway's to say.
BOMB = """python3 -c '
import os, time
print("begun", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.2)
' {}"""


@pytest.fixture(scope="module")
def small(shared_rig):
    """A gateway whose Sprites have 8 MiB of disk together."""
    emulator = shared_rig.emulator(disk="size=8m")
    gateway = shared_rig.gateway(emulator=emulator, exec_max_processes=48, token={"sessions": 1})
    gateway.sprites = emulator.view
    return gateway


@pytest.fixture(scope="module")
def unlimited(shared_rig):
    """A gateway that sets no limits. A Sprite of the emulator has fewer processes than the machine that all of them are on."""
    emulator = shared_rig.emulator("--max-processes", "60")
    gateway = shared_rig.gateway(emulator=emulator, token={"sessions": 2})
    gateway.sprites = emulator.view
    return gateway


def go_on_afterwards(gateway):
    """Afterwards no Sprite is left, and a command finds everything as it should be."""
    gateway.sprites.until_alive(0)
    yield gateway
    gateway.sprites.until_alive(0)
    ran = gateway.run("head -c 1000000 /dev/zero >/tmp/x && wc -c </tmp/x")
    assert (ran.exit_code, ran.stdout) == (0, "1000000\n"), ran.json


@pytest.fixture
def gateway(small):
    yield from go_on_afterwards(small)


@pytest.fixture(params=["small", "unlimited"])
def bombed(request):
    yield from go_on_afterwards(request.getfixturevalue(request.param))


def close(gateway, session):
    closed = gateway.http.delete(f"/-/agent/exec/sessions/{session}", headers={"Authorization": f"Bearer {gateway.token}"})
    assert closed.status_code == 200, closed.text


def test_a_fork_bomb(bombed):
    """In a session of its own, where no signal for the command's group finds it."""
    mark = next(marks)
    ran = bombed.run("setsid " + BOMB.format(mark), timeout_seconds=10, outputs=["/etc/hostname"])
    assert (ran.outcome, ran.stdout) == ("timed_out", "begun\n" * max(1, ran.stdout.count("begun\n"))), ran.json
    [file] = ran.files.values()
    assert file.get("error") == "not_read" or file["text"], file
    until(lambda: not running(mark), "all its processes are gone")


def test_a_fork_bomb_that_is_left_behind(bombed):
    """The command ends, what it has started does not."""
    mark = next(marks)
    ran = bombed.run(f"{BOMB.format(mark)} >/dev/null 2>&1 & echo ended", timeout_seconds=60)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "ended\n"), ran.json
    until(lambda: not running(mark), "all its processes are gone")


def test_a_fork_bomb_in_a_session(unlimited):
    """It stays there, and another command finds no room. What becomes of that is told; closing the session ends all of it."""
    unlimited.sprites.until_alive(0)
    mark = next(marks)
    ran = unlimited.run(f"setsid {BOMB.format(mark)} >/dev/null 2>&1 & echo ended", session="full", timeout_seconds=60)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "ended\n"), ran.json
    until(lambda: len(running(mark)) > 40, "it has taken all it can get")
    answer = unlimited.exec(command="echo next", session="full", timeout_seconds=60)
    assert answer.status_code in (200, 502, 503) and answer.json()["outcome"] in ("exited", "unknown", "not_started"), answer.text
    close(unlimited, "full")
    until(lambda: not running(mark), "all its processes are gone")
    unlimited.sprites.until_alive(0)


def test_a_fork_bomb_that_ends_in_a_session(unlimited):
    """With its time, when it stays in the command's group: the session is there as before."""
    unlimited.sprites.until_alive(0)
    mark = next(marks)
    assert unlimited.run("echo kept >note", session="bomb").exit_code == 0
    ran = unlimited.run(f"exec {BOMB.format(mark)}", session="bomb", timeout_seconds=5)
    assert (ran.outcome, ran.stdout) == ("timed_out", "begun\n"), ran.json
    until(lambda: not running(mark), "all its processes are gone")
    assert unlimited.run("cat note", session="bomb").stdout == "kept\n"
    close(unlimited, "bomb")
    unlimited.sprites.until_alive(0)


def test_a_full_disk_in_a_session(gateway):
    """It stays full, and the session as it is, until a command makes room."""
    def run(command, **fields):
        return gateway.run(command, session="full", timeout_seconds=60, **fields)
    ran = run("echo kept >note; cat /dev/zero >/tmp/filler; echo $?")
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "1\n") and "No space left" in ran.stderr, ran.json
    ran = run("cat note; head -c 100000 /dev/zero >more; echo $?")
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "kept\n1\n") and "No space left" in ran.stderr, ran.json
    ran = run("echo ran", files={"/tmp/a": "x" * 100_000})
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 126, "") and "No space left" in ran.stderr, ran.json
    ran = run("rm /tmp/filler && head -c 100000 /dev/zero >more; cat note; stat -c %s more")
    assert (ran.exit_code, ran.stdout, ran.json["sandbox"]["session"]["created"]) == (0, "kept\n100000\n", False), ran.json
    close(gateway, "full")


def test_a_full_disk(gateway):
    """The command is told by the system, its caller by the command. What of its output can be known is told."""
    ran = gateway.run("cat /dev/zero >/tmp/filler; echo $?", outputs=["/tmp/filler", "/etc/hostname"], timeout_seconds=60)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "1\n") and "No space left" in ran.stderr, ran.json
    assert ran.files["/tmp/filler"]["error"] == "too_large" and ran.files["/tmp/filler"]["bytes"] > MIB, ran.files
    assert ran.output_check in ("counted", "failed"), ran.output_check


def test_a_disk_that_is_full_of_input(gateway):
    ran = gateway.run("echo ran", files={"/tmp/a": "x" * 9_000_000}, timeout_seconds=60)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 126, "") and "No space left" in ran.stderr, ran.json


def test_a_flood_of_output(gateway):
    """It is counted and cut, and ends with the command's time."""
    ran = gateway.run("yes | tee /dev/stderr", timeout_seconds=10, max_output_bytes=10_000)
    assert ran.outcome == "timed_out", ran.json
    for stream in ("stdout", "stderr"):
        assert ran.json[f"{stream}_truncated"] and ran.json[f"{stream}_bytes"] > 10_000 and len(ran.json[stream]) < 10_200, ran.json


def test_a_flood_of_rows(gateway):
    """What is no row is not written, and the command ends with its time."""
    ran = gateway.run("yes nonsense", stdout_to={"datasette": "/sample/notes/-/insert", "format": "ndjson"}, timeout_seconds=10, max_output_bytes=100_000)
    assert (ran.outcome, ran.stdout_to["rows_written"], ran.stdout_to["error"]["row"]) == ("timed_out", 0, 0), ran.json


@pytest.fixture(scope="module")
def limited(shared_rig):
    return shared_rig.gateway(exec_max_processes=40, exec_max_file_bytes="1MiB", exec_max_memory_bytes="128MiB", token={"sessions": 1})


FORKS = """python3 -c '
import errno, os, time
for count in range(1000):
    try:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    except OSError as error:
        print(errno.errorcode[error.errno], 0 < count < 40)
        break
'"""


@pytest.mark.parametrize("command, exit_code, stdout, stderr", [
    (FORKS, 0, "EAGAIN True\n", ""),
    ("head -c 2000000 /dev/zero >/tmp/large; echo $?; stat -c %s /tmp/large", 0, "153\n1048576\n", "File size limit exceeded"),
    ("exec head -c 2000000 /dev/zero >/tmp/large", 153, "", ""),
    ("python3 -c 'b\"x\" * (256 << 20)'", 1, "", "MemoryError"), ("sh -c 'ulimit -Hf unlimited'", 2, "", "ulimit")])
def test_limits_of_a_command(limited, command, exit_code, stdout, stderr):
    """It is told by the system; its caller is told what it ended with."""
    ran = limited.run(command, timeout_seconds=60)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", exit_code, stdout) and stderr in ran.stderr, ran.json


EATER = "echo kept >note; tail /dev/zero; echo $?"


def ate(ran):
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "1\n") and "memory exhausted" in ran.stderr, ran.json


@pytest.mark.parametrize("session", [None, "eater"])
def test_a_memory_eater(limited, session):
    """It is refused more, and its session goes on."""
    fields = {"session": session} if session else {}
    ate(limited.run(EATER, timeout_seconds=60, **fields))
    assert limited.run("cat note; true", **fields).stdout == ("kept\n" if session else "")
    if session:
        close(limited, session)


def test_a_memory_eater_without_limits(rig):
    """It meets those of its Sprite."""
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator)
    resource.prlimit(emulator.pid, resource.RLIMIT_DATA, (512 * MIB, resource.RLIM_INFINITY))
    ate(gateway.run(EATER, timeout_seconds=60))
    assert gateway.run("echo next").stdout == "next\n"


ULIMITS = "ulimit -Hu; ulimit -Hf; ulimit -Hd"


def test_a_token_may_have_less_and_never_more(rig, limited):
    less = rig.mint(max_procs=30, max_file="512KiB", max_mem="64MiB")["token"]
    more = rig.mint(max_procs=50, max_file="2MiB", max_mem="256MiB")["token"]
    for token, limits in ((less, "30\n512\n65536\n"), (more, "40\n1024\n131072\n"), (None, "40\n1024\n131072\n")):
        assert limited.run(ULIMITS, token=token).stdout == limits
        told = limited.get("/-/agent/exec/quota", headers={"Authorization": f"Bearer {token or limited.token}"}).json()
        assert f"{told['max_processes']}\n{told['max_file_bytes'] // 1024}\n{told['max_memory_bytes'] // 1024}\n" == limits


def test_a_policy_limits_its_tokens(stack):
    """What a token says itself comes first, in its sessions as well."""
    name = "small-" + stack.mint()["kid"]
    cli(stack, "set", name, "--max-procs", "30", "--max-file", "1MiB", noun="policy")
    heir, other = (stack.mint(policy=name, **own)["token"] for own in ({}, {"max_procs": 20, "max_file": "none", "sessions": 1}))
    assert stack.run(ULIMITS, token=heir).stdout == "30\n1024\nunlimited\n"
    assert stack.run(ULIMITS, token=other, session="one").stdout == "20\nunlimited\nunlimited\n"
    ran = stack.run("head -c 2000000 /dev/zero >/tmp/large; echo $?", token=heir)
    assert (ran.exit_code, ran.stdout) == (0, "153\n"), ran.json


def test_a_limit_that_is_lower_already_stays(rig):
    emulator = rig.emulator()
    gateway = rig.gateway(emulator=emulator, exec_max_file_bytes="1MiB")
    resource.prlimit(emulator.pid, resource.RLIMIT_FSIZE, (512 * 1024, resource.RLIM_INFINITY))
    assert gateway.run("ulimit -Sf; ulimit -Hf").stdout == "512\n1024\n"


def test_limits_are_not_those_of_input_and_output(limited):
    """A record longer than a file of the command may be, and files that the gateway writes for it."""
    ran = limited.run("head -c 3000000 /dev/zero; stat -c %s /tmp/a >&2", files={"/tmp/a": "x" * 2_000_000}, max_output_bytes=4 * MIB)
    assert (ran.exit_code, ran.stdout_bytes, ran.output_check, ran.stderr) == (0, 3_000_000, "verified", "2000000\n"), ran.json
