import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "emulator" / "tests"))

from emulator_client import Emulator  # noqa: E402


@pytest.fixture(scope="module")
def emulator():
    """One with short delays for the tests of a file."""
    with Emulator() as started:
        yield started
