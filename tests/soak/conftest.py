import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
pytest.register_assert_rewrite("answers", "rig", "wire", "nasty", "storm", "fault_mix", "commands", "traffic", "world")

from fixtures import *  # noqa: E402,F403
