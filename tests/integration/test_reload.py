"""SIGHUP: settings that may change while the gateway serves do, a faulty file changes nothing, and nobody is disturbed."""
import concurrent.futures
import json
import os
import signal
import threading

import pytest

from answers import problem
from processes import running
from rig import BINARY, OwnGateway, until
from wire import Wire

BASE = {"exec_timeout_seconds": "30", "max_body_bytes": "1MiB"}


class Reloadable(OwnGateway):
    """Its settings beside those that it needs are in a file."""

    def __init__(self, rig, folder, emulator=None, **lines):
        self.file = folder / "spritegate.conf"
        self.write(**lines)
        stack, emulator = rig.stack, emulator or rig.emulator()
        settings = {"datasette_url": stack.datasette, "redis_url": stack.redis_url, "sprites_url": emulator.url, "sprites_token": emulator.token,
                    "pepper": stack.pepper, "redis_timeout_ms": 1000}
        super().__init__(settings, argv=[BINARY, "serve", "--config", self.file])
        rig.add(self, self.stop_at_once)
        self.token = rig.mint()["token"]

    def write(self, **lines):
        self.file.write_text("".join(f"{name} = {value}\n" for name, value in {**BASE, **lines}.items()), encoding="utf-8")

    said = 0

    def messages(self):
        return [json.loads(line)["message"] for line in self.log.splitlines()[self.said:]]

    def hang_up(self, *said):
        """Until the log has these and what a reload ends with, for the first time or once more."""
        before = len(self.messages())
        self.signal(signal.SIGHUP)
        for what in said:
            until(lambda what=what: [line for line in self.messages()[before:] if what in line], lambda: f"{what}; the log is {self.log[-2000:]}", 30)

    def reload(self, **lines):
        self.write(**lines)
        self.hang_up("reload: done")

    def successful(self):
        return self.metrics().get("spritegate_config_last_reload_successful")


@pytest.fixture(scope="module")
def shared(shared_rig, tmp_path_factory):
    return Reloadable(shared_rig, tmp_path_factory.mktemp("settings"), pool_hot=0)


@pytest.fixture
def gateway(shared):
    """With its first settings, and nothing said yet."""
    shared.reload(pool_hot=0)
    shared.said = len(shared.log.splitlines())
    return shared


@pytest.fixture
def executor():
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool


def post(gateway, size):
    return gateway.http.post("/sample/stations", content=b"x" * size)


@pytest.mark.smoke
def test_limits_change(gateway):
    assert post(gateway, 2000).status_code != 413 and gateway.run("echo 12345").stdout == "12345\n"
    gateway.reload(pool_hot=0, max_body_bytes="1KiB", exec_timeout_seconds="0.5", exec_max_output_bytes=3, exec_max_body_bytes="1KiB",
                   exec_max_file_bytes="2MiB")
    # Workers take it over each in its own time.
    until(lambda: all(post(gateway, 2000).status_code == 413 for _ in range(20)), "every worker has the new limit", 30)
    until(lambda: gateway.exec(command="sleep 20").json()["outcome"] == "timed_out", "commands have the new time", 30)
    assert gateway.run("echo 12345", timeout_seconds=60).json["stdout_truncated"] is True
    assert gateway.run("test $(ulimit -Hf) = 2048", timeout_seconds=60).exit_code == 0
    problem(gateway.exec(command="true", stdin="x" * 2000), 413, "body-too-large")
    changed = "reload: changed: max_body_bytes, exec_max_body_bytes, exec_timeout_seconds, exec_max_output_bytes, exec_max_file_bytes"
    assert changed in gateway.messages(), gateway.log
    gateway.reload(pool_hot=0)
    until(lambda: all(post(gateway, 2000).status_code != 413 for _ in range(20)), "every worker has the old limit again", 30)


def test_the_pool_is_filled_as_it_says_now(rig, tmp_path):
    emulator = rig.emulator()
    gateway = Reloadable(rig, tmp_path, emulator, pool_hot=0, pool_max=4)
    assert emulator.view.alive() == 0
    gateway.reload(pool_hot=2, pool_max=4)
    emulator.view.until_alive(2)
    gateway.reload(pool_hot=1, pool_warm=2, pool_max=4)
    until(lambda: gateway.metrics().get("spritegate_pool_target", tier="warm") == 2, "the new sizes are wanted", 30)
    assert gateway.metrics().get("spritegate_pool_target", tier="hot") == 1


@pytest.mark.parametrize("line, said", [
    ({"exec_timeout_seconds": "soon"}, 'exec_timeout_seconds: "soon" is not'),
    ({"max_body_bytes": "17GiB"}, "max_body_bytes: 18253611008 is outside"),
    ({"no_such_thing": "1"}, 'unknown setting "no_such_thing"'),
    ({"pool_hot": 5, "pool_max": 2}, "pool_hot: 5 is above pool_max (2)"),
    ({"trusted_proxies": "everybody"}, "trusted_proxies: expected networks"),
    ({"audit_table": "nonsense"}, "audit_table: expected DATABASE/TABLE"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_a_fault_changes_nothing(gateway, line, said):
    gateway.write(**{"pool_hot": 0, "max_body_bytes": "1KiB", **line})
    gateway.hang_up(said, "reload: nothing was changed")
    assert gateway.successful() == 0
    assert all(post(gateway, 2000).status_code != 413 for _ in range(10))
    gateway.reload(pool_hot=0)
    assert gateway.successful() == 1


def test_a_file_that_is_gone_changes_nothing(gateway):
    before = gateway.metrics().get("spritegate_config_last_reload_timestamp_seconds")
    gateway.file.unlink()
    gateway.hang_up("cannot be read", "reload: nothing was changed")
    assert gateway.successful() == 0
    assert gateway.metrics().get("spritegate_config_last_reload_timestamp_seconds") == before > 1.7e9
    assert gateway.get("/-/versions.json").status_code == 200


def test_what_takes_a_restart_is_named_and_no_value_told(gateway):
    gateway.reload(pool_hot=0, workers=1, client_idle_seconds=11, audit_token="dstok_secret-of-the-test")
    assert "reload: waits for a restart: workers, client_idle_seconds, audit_token" in gateway.messages(), gateway.log
    assert "dstok_secret" not in gateway.log and gateway.successful() == 1


def test_the_environment_wins(gateway):
    gateway.reload(pool_hot=0, redis_timeout_ms=77, exec_timeout_seconds="29")
    assert "reload: changed: exec_timeout_seconds" in gateway.messages(), gateway.log
    assert not [line for line in gateway.messages() if "restart" in line]


def test_without_a_file_only_logs_are_opened_anew(rig):
    gateway = rig.gateway(token=False)
    gateway.signal(signal.SIGHUP)
    until(lambda: "log files are opened anew" in gateway.log, "the signal was heard")
    assert gateway.get("/-/versions.json").status_code == 200 and "reload" not in gateway.log


def test_nobody_is_disturbed(gateway, executor):
    """A connection that is kept, a command that runs, and a load while settings change again and again."""
    mark = f"31370.{os.getpid()}"
    command = executor.submit(gateway.exec, command=f"sleep {mark}; echo ended", timeout_seconds=100)
    until(lambda: running(mark), "the command runs")
    over, seen = threading.Event(), []

    def load():
        with Wire(gateway.port) as wire:
            while not over.is_set():
                wire.ask("GET", "/-/versions.json")
                seen.append(wire.answer().status)

    with Wire(gateway.port) as kept:
        kept.ask("GET", "/-/versions.json")
        assert kept.answer().status == 200
        loads = [executor.submit(load) for _ in range(3)]
        for round in range(10):
            gateway.reload(pool_hot=round % 2, max_body_bytes=f"{round + 1}KiB", exec_timeout_seconds=round + 1)
        over.set()
        for one in loads:
            one.result()
        kept.ask("GET", "/-/versions.json")
        assert kept.answer().status == 200
    assert len(seen) >= 3 and set(seen) == {200}
    for pid in running(mark):
        os.kill(pid, signal.SIGTERM)
    assert command.result().json()["stdout"] == "ended\n", "a running command keeps its own time"
