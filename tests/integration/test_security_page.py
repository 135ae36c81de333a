"""SECURITY.md names tests that exist."""
import re

from rig import TOP

PAGE = TOP / "SECURITY.md"
NAMED = re.compile(r"`([a-z/_]+\.py)::(test_\w+)`")


def test_every_test_it_names_is_there():
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert len(named) > 25
    missing = [f"{path}::{test}" for path, test in named
               if not re.search(rf"^def {test}\(", (TOP / "tests" / path).read_text(encoding="utf-8"), re.MULTILINE)]
    assert not missing, missing


def test_every_claim_names_one():
    """Each point of who can do what is shown by a test, but what it says is not prevented."""
    section = re.search(r"## Who can do what.*?\n## ", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    points = re.findall(r"^- (.*?)(?=^- |^#|\Z)", section, re.MULTILINE | re.DOTALL)
    bare = [point for point in points if not NAMED.search(point) and not point.startswith("Can ")]
    assert len(points) > 20 and not bare, bare
