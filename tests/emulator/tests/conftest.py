import asyncio
import inspect
import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))      # the emulator's pure modules

from emulator_client import Emulator  # noqa: E402

LIMIT = 240      # seconds for one test, on a machine that has much else to do


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run coroutine tests."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    asyncio.run(asyncio.wait_for(test, LIMIT))
    return True


@pytest.fixture(scope="module")
def emulator():
    """One with short delays for the tests of a file."""
    with Emulator() as started:
        yield started
