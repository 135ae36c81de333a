"""What other processes of the same user can get of a gateway: nothing."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess

import pytest

from processes import go_on, new_mark, running
from rig import BINARY, PRESET, OwnGateway, free_port, until

# The tests' root may look into everything: without its capabilities it is a user like any other.
PLAIN_USER = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


@pytest.fixture(scope="module")
def gateway(stack, shared_rig):
    gateway = OwnGateway({"datasette_url": stack.datasette, "redis_url": stack.redis_url, "sprites_url": stack.sprites.url,
                          "sprites_token": stack.sprites.token, "pepper": stack.pepper, "pool_hot": 0}, argv=[*PLAIN_USER, BINARY, "serve"])
    return shared_rig.add(gateway, gateway.stop_at_once)


def read(path):
    return subprocess.run([*PLAIN_USER, "cat", path], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


def test_another_process_can_be_read(tmp_path):
    """Or the next tests would show nothing."""
    with subprocess.Popen([*PLAIN_USER, "sleep", "600"], env={**os.environ, "SECRET": "of-the-test"}) as other:
        try:
            until(lambda: b"SECRET=of-the-test" in read(f"/proc/{other.pid}/environ").stdout, "another process is read")
        finally:
            other.kill()


@pytest.mark.parametrize("file", ["environ", "mem", "maps"])
def test_its_memory_and_secrets_are_closed(gateway, stack, file):
    done = read(f"/proc/{gateway.pid}/{file}")
    assert done.returncode != 0 and b"denied" in done.stderr, done
    assert stack.pepper.encode() not in done.stdout


def test_nothing_of_it_is_dumped_and_nothing_gains_rights(gateway):
    limits = pathlib.Path(f"/proc/{gateway.pid}/limits").read_text(encoding="utf-8")
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"], core
    assert gateway.status("NoNewPrivs") == "1"


WITH_CORES = ["sh", "-c", 'ulimit -c unlimited; cd "$0" && exec "$@"']     # as its parent allows


def leaves_a_core(pid):
    """Once it was killed by a signal whose default is one (not QUIT, which shells ignore in what they run beside them). What a test runs under may keep all cores from being written."""
    os.kill(pid, signal.SIGABRT)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT, status
    return os.WCOREDUMP(status)


def test_a_crash_leaves_no_core(stack, rig, tmp_path):
    dying = OwnGateway({"datasette_url": stack.datasette, "redis_url": stack.redis_url, "sprites_url": stack.sprites.url,
                        "sprites_token": stack.sprites.token, "pepper": stack.pepper, "pool_hot": 0}, argv=[*WITH_CORES, tmp_path, BINARY, "serve"])
    rig.add(dying, dying.kill)
    assert pathlib.Path(f"/proc/{dying.pid}/cwd").resolve() == tmp_path
    assert not leaves_a_core(dying.pid) and not list(tmp_path.iterdir())


def test_no_secret_is_among_its_arguments(gateway, stack):
    arguments = pathlib.Path(f"/proc/{gateway.pid}/cmdline").read_bytes()
    for secret in (stack.pepper, stack.sprites.token, stack.redis_url):
        assert secret.encode() not in arguments


def statuses(pid):
    """Of each thread what the kernel tells of it: {name: value}."""
    found = []
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):    # it has ended
            lines = (thread / "status").read_text(encoding="utf-8").splitlines()
            found.append({name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
    return found


def filters(pid):
    """Of each thread: how many filters of system calls."""
    return [int(status["Seccomp_filters"]) for status in statuses(pid)]


def low_port():
    """One that takes a right to listen at."""
    for port in range(1023, 600, -1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there is none")


def rights(pid):
    """Of each thread: its capabilities in every set but the bounding one."""
    return [tuple(value for name, value in status.items() if name in ("CapInh", "CapPrm", "CapEff", "CapAmb")) for status in statuses(pid)]


def test_roots_capabilities_are_for_its_start(stack, rig):
    """It listens at an address that takes one, and has none when it serves."""
    own = rights("self")[0]
    as_root = os.geteuid() == 0
    assert not as_root or any(int(one, 16) for one in own), "without any this would show nothing"
    port = low_port() if as_root else free_port()
    gateway = OwnGateway({"datasette_url": stack.datasette, "redis_url": stack.redis_url, "sprites_url": stack.sprites.url,
                          "sprites_token": stack.sprites.token, "pepper": stack.pepper, "pool_hot": 0, "listen": f"127.0.0.1:{port}"})
    rig.add(gateway, gateway.stop_at_once)
    assert gateway.get("/sample.json").status_code == 200
    found = rights(gateway.pid)
    none = ("0" * 16,) * 4
    assert len(found) >= 2 and set(found) == {own if PRESET in ("asan", "tsan") else none}     # sanitizers need them


def test_files_that_only_its_start_may_open(rig, tmp_path):
    """Root may enter the folder of another user as long as it has capabilities."""
    folder = tmp_path / "another's"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, 1, 1)
    redis = rig.redis()
    files = {name: folder / name for name in ("access_log", "audit_log", "settlements_file")}
    gateway = rig.gateway(redis=redis, **files)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        mark = new_mark()
        busy = pool.submit(gateway.run, f"sleep {mark}", timeout_seconds=200)
        until(lambda: running(mark), "the command runs")
        redis.kill()
        go_on(mark)
        exec_id = busy.result().exec_id
    gateway.stop_at_once()
    lines = {name: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for name, file in files.items()}
    assert [line["kid"] for line in lines["settlements_file"]] == [gateway.kid]
    assert [line["record"] for line in lines["audit_log"] if line["exec_id"] == exec_id] == ["decision", "run"]
    assert exec_id in [line.get("exec_id") for line in lines["access_log"]]


def test_every_thread_has_the_filter(gateway, stack, shared_rig):
    around = filters("self")[0]     # a container may have one of its own
    assert gateway.get("/sample.json").status_code == 200
    confined = filters(gateway.pid)
    own = 0 if PRESET in ("asan", "tsan") else 1    # sanitizers need calls of their own
    assert len(confined) >= 2 and set(confined) == {around + own}
    free = shared_rig.gateway(seccomp=0)
    assert set(filters(free.pid)) == {around}
