"""docs/API.md: its examples are run as they stand, and answer as it says."""
import json
import re
import subprocess

import pytest

from rig import TOP, clean_environment

PAGE = (TOP / "docs/API.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# Each shell block with the block that follows at once: what it prints.
EXAMPLES = [(command, expected or None) for command, expected in
            re.findall(r"^```sh\n(.*?)^```\n(?:```\n(.*?)^```\n)?", PAGE, re.MULTILINE | re.DOTALL)]
VOLATILE = {"duration_ms", "admit", "claim", "exec"}


def run(stack, command, setup):
    env = clean_environment({"LC_ALL": "C.UTF-8"})
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", setup + command], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout


@pytest.fixture
def setup(stack):
    """The page's own lines, with this stack's address and token."""
    first = next(text for kind, text in BLOCKS if not kind and text.startswith("GATEWAY="))
    text = re.sub("^GATEWAY=.*$", f"GATEWAY={stack.url}", first, flags=re.MULTILINE)
    return re.sub("^TOKEN=.*$", f"TOKEN={stack.token}", text, flags=re.MULTILINE)


def as_said(said, printed):
    pattern = re.escape(said.strip()).replace("…", r".*?")
    return re.fullmatch(pattern.replace("\\\n", "\r?\n"), printed.replace("\r", "").strip())


@pytest.mark.parametrize("command, expected", EXAMPLES, ids=[str(i) for i in range(len(EXAMPLES))])
def test_examples(stack, setup, command, expected):
    stack.until_ready()
    printed = run(stack, command, setup)
    assert printed.strip(), "it prints nothing"
    if expected is not None:
        assert as_said(expected, printed), f"said:\n{expected}\nprinted:\n{printed}"


def compare(said, got, where):
    assert type(said) is type(got) or {type(said), type(got)} <= {int, float}, f"{where}: {got!r}"
    if isinstance(said, dict):
        assert list(said) == list(got), f"{where}: {list(got)}"
        for name in said:
            if name not in VOLATILE or isinstance(said[name], dict):
                compare(said[name], got[name], f"{where}/{name}")
    elif not (isinstance(said, str) and "…" in said):
        assert said == got, f"{where}: {got!r}"


def test_the_answer(stack, setup):
    said = next(json.loads(text) for kind, text in BLOCKS if kind == "json" and '"stdout_bytes"' in text)
    compare(said, json.loads(run(stack, EXAMPLES_OF_THE_ANSWER, setup)), "")


EXAMPLES_OF_THE_ANSWER = next(command for command, _ in EXAMPLES if "wc -l" in command)


# What a shell beside the gateway cannot show; the tests do.
ELSEWHERE = {"From Datasette Agent": "sdk/test_spritegate_plugin.py", "The admin listener": "integration/test_status_page.py"}


def test_every_part_has_an_example():
    parts = re.split(r"^##+ (.*)\n", PAGE, flags=re.MULTILINE)[1:]
    parts = dict(zip(parts[::2], parts[1::2]))
    assert len(parts) > 15
    # Above, it is compared with the answer of the example before it.
    assert {heading for heading, text in parts.items() if "```sh\n" not in text} == {"The answer", *ELSEWHERE}
    for heading, test in ELSEWHERE.items():
        assert (TOP / "tests" / test).exists() and test in parts[heading], heading
