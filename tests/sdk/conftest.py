import pathlib
import shutil
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / "emulator" / "tests"), str(TESTS / "integration")]

from emulator_client import Emulator  # noqa: E402


@pytest.fixture(scope="module")
def emulator():
    """One with short delays for the tests of a file."""
    with Emulator() as started:
        yield started


def pytest_sessionfinish(session, exitstatus):
    """Logs stay where something failed."""
    if exitstatus == 0 and "rig" in sys.modules:
        shutil.rmtree(sys.modules["rig"].LOGS, ignore_errors=True)
