"""One run: where the service is, the Sprites it makes, what it measured, and that nothing is left.

Without SPRITEGATE_SPRITES_URL an emulator is started. The Sprites of a run are made when the first
test needs them and deleted at its end, whatever that end is.
"""
import asyncio
import dataclasses
import inspect
import os
import pathlib
import signal
import socket
import sys
import urllib.parse

import pytest

TESTS = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.append(str(TESTS / "emulator" / "tests"))

from emulator_client import TOKEN, Emulator  # noqa: E402
from figures import Figures, table  # noqa: E402
from service import CLOSED, Service, is_complete  # noqa: E402

ASLEEP = float(os.environ.get("SG_SPRITES_ASLEEP", "0"))
LIMIT = 300 + ASLEEP            # seconds for one test
SERVICE = pytest.StashKey[Service]()
TARGET = pytest.StashKey[str]()
BEFORE = pytest.StashKey[list]()
LEFT = pytest.StashKey[list]()
EMULATED = ("--create-delay", "500ms", "--idle-pause", "3s", "--control-idle-holds", "false", "--create-limit", "6/60s", "--running-limit", "20", "--offline")
OPEN_NAME = "reachable.example"


@dataclasses.dataclass
class Timing:
    """What differs between the service, whose idle window is about 30 s, and an emulator with a short one."""
    keepalive: float            # a command this often keeps a Sprite running (the gateway's KEEPALIVE is 20 s)
    patience: float             # by then an idle Sprite has paused
    asleep: float               # how long it is left so before it is woken


# They share Sprites, so the order counts: what takes the last of them away comes last.
ORDER = ("test_creating", "test_network", "test_commands", "test_checkpoints", "test_idle", "test_deleting", "test_limit")
collect_ignore = [] if "SPRITEGATE_SPRITES_URL" not in os.environ or "SG_SPRITES_BURST" in os.environ else ["test_limit.py"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.path.stem))


def pytest_configure(config):
    def interrupt(number, frame):
        raise KeyboardInterrupt
    # Fixtures are torn down by both. With Python's own handler asyncio.run() only cancels its task, which may end all the same.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run coroutine tests, each on a loop of its own with its own connections."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    on_loop(pyfuncitem.config.stash[SERVICE], lambda: pyfuncitem.obj(**arguments))
    return True


def on_loop(service, make):
    """The result of a coroutine that uses the service."""
    async def main():
        async with service:
            return await asyncio.wait_for(make(), LIMIT)
    return asyncio.run(main())


@pytest.fixture(scope="session")
def emulator():
    """The one that this run started; None when it has another target."""
    if os.environ.get("SPRITEGATE_SPRITES_URL"):
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as server, \
            Emulator(*EMULATED, "--resolve", f"{OPEN_NAME}=127.0.0.1:{server.getsockname()[1]}", quick=False) as started:
        yield started


@pytest.fixture(scope="session")
def service(request, emulator):
    stash = request.config.stash
    url, token = (emulator.url, TOKEN) if emulator else (os.environ["SPRITEGATE_SPRITES_URL"], os.environ["SPRITEGATE_SPRITES_TOKEN"])
    made = stash[SERVICE] = Service(url, token, Figures())
    stash[TARGET] = "the emulator: its delays are settings, only the rest is measured" if emulator else urllib.parse.urlsplit(url).netloc
    stash[LEFT] = []
    stash[BEFORE] = on_loop(made, made.others)
    try:
        yield made
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)       # a second Ctrl-C must not leave Sprites behind
        stash[LEFT] = on_loop(made, made.clean_up)
        assert not stash[LEFT], f"not deleted: {', '.join(stash[LEFT])}"


@pytest.fixture(scope="session")
def timing(emulator):
    return Timing(1, 20, ASLEEP) if emulator else Timing(20, 120, ASLEEP)


@pytest.fixture(scope="session")
def figures(service):
    return service.figures


@pytest.fixture(scope="session")
def reachable(emulator, service):
    """(name, port) that a Sprite with an open network reaches: the service itself, or a name of the emulator."""
    if emulator:
        return OPEN_NAME, 443
    place = urllib.parse.urlsplit(service.url)
    return place.hostname, place.port or 443


async def prepared(service):
    """A Sprite as the gateway prepares one. What fails here fails in the test that is about it."""
    name, created = await service.create()
    assert created.status in range(200, 205), created
    policy = await service.ask("POST", f"/v1/sprites/{name}/policy/network", json=CLOSED)
    async with service.control(name) as control:
        first = await control.start("bash", "-lc", ":")
        await control.input(b"")
        await control.follow(is_complete, first)
    figures = service.figures
    figures.time("M3", "create", created.seconds)
    figures.time("M3", "first answer of the new Sprite (policy set)", policy.seconds)
    if first.seconds_to_exit is not None:
        figures.time("M3", "first command", first.seconds_to_exit)
        figures.time("M3", "all", created.seconds + policy.seconds + first.seconds_to_exit)
    return name


@pytest.fixture(scope="session")
def sprite(service):
    """The Sprite of most tests: its network is closed, and commands leave it as it was."""
    return on_loop(service, lambda: prepared(service))


@pytest.fixture(scope="session")
def other(service):
    """A second one, for what changes it."""
    return on_loop(service, lambda: prepared(service))


@pytest.fixture(scope="session")
def fresh(service):
    """(name, answer) of a Sprite to which nothing was done yet."""
    return on_loop(service, service.create)


def pytest_terminal_summary(terminalreporter, config):
    service = config.stash.get(SERVICE, None)
    if service:
        terminalreporter.section(f"measured, with {service.creates} Sprites")
        for line in table(service.figures, config.stash[TARGET]):
            terminalreporter.write_line(line)
        if config.stash[BEFORE]:
            terminalreporter.write_line(f"of other runs, left alone: {', '.join(config.stash[BEFORE])}")
        if config.stash[LEFT]:
            terminalreporter.write_line(f"NOT DELETED: {', '.join(config.stash[LEFT])}")
