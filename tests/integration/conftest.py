import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
pytest.register_assert_rewrite("answers", "observer", "rig", "transparency", "twins", "wire", "nasty", "faulty", "storm", "fault_mix", "sources", "identity")

from fixtures import *  # noqa: E402,F403
