"""Fixtures: one stack a test process, started as users start it, and rigs for tests that need parts of their own."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import rig as rigs

LIMIT = 300     # seconds a test may take unless it says otherwise

# Files that take more than a minute are begun first, so that in the end nobody waits for one of them.
LONG = {"test_drain", "test_exec_faults", "test_exec_sessions", "test_exec_stream", "test_fault_mix", "test_fault_table", "test_leaks", "test_pool",
        "test_pool_fleet", "test_pool_shared", "test_sprites_faults", "test_stack", "test_transparency"}


class Stack(rigs.Gateway):
    """The stack of ./deploy/up."""

    def __init__(self, folder, env):
        self.folder, self.env = folder, env
        self.record = json.loads((folder / "stack.json").read_text())
        super().__init__(self.record["gateway"], self.record["admin"], self.record["pids"]["gateway"])
        self.datasette, self.redis_url = self.record["datasette"], self.record["redis"]
        self.pepper = env["SPRITEGATE_PEPPER"]
        self.sprites = rigs.Sprites(self.record["sprites"], self.record["sprites_token"])
        self.redis = rigs.redis.Redis.from_url(self.redis_url, decode_responses=True)

    def mint(self, **limits):
        return rigs.mint({"SPRITEGATE_PEPPER": self.pepper, "SPRITEGATE_REDIS_URL": self.redis_url}, **limits)

    @property
    def log(self):
        return (self.folder / "logs/gateway.log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def server():
    """A Redis of a file's own, for what needs no stack."""
    part = rigs.Redis()
    yield part
    part.kill()


POOL_HOT = 3


@pytest.fixture(scope="session")
def stack():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="spritegate-stack-"))
    env = rigs.clean_environment({
        "SG_STATE": str(folder), "SG_PRESET": rigs.PRESET, "SG_EMULATOR_ARGS": " ".join(rigs.QUICK),
        "SPRITEGATE_PEPPER": "pepper of the integration tests, 32+", "SPRITEGATE_POOL_HOT": str(POOL_HOT),
        "SPRITEGATE_REDIS_TIMEOUT_MS": str(rigs.PATIENT_REDIS_MS),
        "SPRITEGATE_WRONG_TOKEN_BURST": "0"})     # every test has the same address
    for name in ("SG_PORT", "SG_ADMIN_PORT", "SG_DATASETTE_PORT", "SG_REDIS_PORT", "SG_SPRITES_PORT"):
        env.pop(name, None)
    try:
        up = subprocess.run(["./deploy/up", "--detach", "--no-demo"], cwd=rigs.TOP, env=env, stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=900, check=False)
        assert up.returncode == 0, f"./deploy/up: exit {up.returncode}\n{up.stdout}{up.stderr}"
        stack = Stack(folder, env)
        stack.minted = stack.mint(sessions=3)
        stack.token, stack.kid = stack.minted["token"], stack.minted["kid"]
        stack.until_ready()
        yield stack
    finally:
        down = subprocess.run(["./deploy/down"], cwd=rigs.TOP, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=300, check=False)
        print(down.stdout, down.stderr)
    assert down.returncode == 0, f"./deploy/down: exit {down.returncode}\n{down.stdout}{down.stderr}"
    shutil.rmtree(folder, ignore_errors=True)


def rig_of(stack):
    rig = rigs.Rig(stack)
    try:
        yield rig
    finally:
        rig.close()


@pytest.fixture
def rig(stack):
    """Parts of a test's own."""
    yield from rig_of(stack)


@pytest.fixture(scope="module")
def shared_rig(stack):
    """Parts shared by the tests of a file."""
    yield from rig_of(stack)


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: time is what it judges, so nothing else runs meanwhile")
    config.addinivalue_line("markers", "bar: ./tests/run bars judges it by the bar itself")
    config.addinivalue_line("markers", "smoke: the short selection that also runs with sanitizers in a plain run")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LIMIT * max(1, rigs.SLOWER // 2)))


def pytest_sessionfinish(session, exitstatus):
    if exitstatus == 0:
        shutil.rmtree(rigs.LOGS, ignore_errors=True)


def pytest_terminal_summary(terminalreporter, exitstatus):
    if exitstatus and os.path.isdir(rigs.LOGS):
        terminalreporter.write_line(f"logs of the tests' parts: {rigs.LOGS}")
