"""The conformance tests themselves: each notices the fault that it is about, whatever happens nothing is left behind
and nothing else is touched, and the token is never shown."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "emulator" / "tests"))

from emulator_client import TOKEN, Emulator  # noqa: E402

STRANGERS = ("conformance-of-another-run", "somebody-elses")
FOUND = "test_creating.py::test_a_sprite_is_found_by_its_name"
CODES = "test_commands.py::test_exit_codes"
# A fault: the tests that must notice, and others that must not mind.
FAULTS = {
    "output is lost": ({"name": "lose_bytes_above"}, ["test_commands.py::test_a_mebibyte_of_output_is_whole"],
                       [CODES, "test_commands.py::test_large_output"]),
    "fast commands are heard too late": ({"name": "fast_output", "history": 0}, ["test_commands.py::test_fast_commands_lose_nothing"],
                                         [CODES, "test_commands.py::test_a_command_that_waits_for_input_loses_nothing"]),
    "the exit is not told": ({"name": "no_exit_code"}, [CODES, "test_commands.py::test_the_course_of_a_command"],
                             [FOUND, "test_commands.py::test_standard_input_is_whole_and_ends"]),
    "the exit is told twice": ({"name": "duplicate_exit", "code": 0}, [CODES], [FOUND]),
    "a creation without the name": ({"name": "missing_field", "field": "name"},
                                    ["test_creating.py::test_a_creation_is_answered_with_the_sprite", FOUND], [CODES]),
    "pages without an end": ({"name": "wrong_type", "field": "next_continuation_token"},
                             ["test_creating.py::test_the_list_comes_in_pages"], [FOUND]),
    "a policy that cannot be read back": ({"name": "missing_field", "field": "rules"},
                                          ["test_network.py::test_what_is_no_policy_is_refused",
                                           "test_network.py::test_a_policy_of_domains_is_read_back_as_it_was_set"], [CODES]),
    "no session id": ({"name": "missing_field", "field": "session_id"}, ["test_commands.py::test_the_kill_route"], [CODES]),
    "a restore that fails": ({"name": "restore_error"}, ["test_checkpoints.py::test_a_restore_brings_back_the_disk_and_ends_what_ran"],
                             ["test_checkpoints.py::test_a_restore_of_what_is_not_there_says_so_in_its_stream"]),
    "a delete that fails once": ({"name": "delete_500", "count": 1}, ["test_deleting.py::test_a_deleted_sprite_is_gone"], [FOUND]),
}


def ask(emulator, method, path, body=None):
    request = urllib.request.Request(emulator.url + path, None if body is None else json.dumps(body).encode(), method=method,
                                     headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.loads(response.read() or b"null")


def names(emulator):
    return [sprite["name"] for sprite in ask(emulator, "GET", "/_emulator/state")["sprites"]]


@pytest.fixture
def emulator():
    with Emulator() as started:
        for name in STRANGERS:
            ask(started, "POST", "/v1/sprites", {"name": name})
        yield started
        assert sorted(names(started)) == sorted(STRANGERS), "what is left"


def start(emulator, *tests):
    return subprocess.Popen([sys.executable, "-m", "pytest", "-q", "--tb=short", "-rfE", "-p", "no:cacheprovider",
                             *[HERE / "contract" / test for test in tests]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "SPRITEGATE_SPRITES_URL": emulator.url, "SPRITEGATE_SPRITES_TOKEN": TOKEN})


def finish(process):
    """(status, output)"""
    try:
        output, _ = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert TOKEN not in output and "Bearer" not in output
    return process.returncode, output


@pytest.mark.parametrize("title", FAULTS)
def test_a_fault_is_noticed(emulator, title):
    fault, noticing, others = FAULTS[title]
    ask(emulator, "POST", "/_emulator/faults", fault)
    status, output = finish(start(emulator, *noticing, *others))
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S*?(test_\w+\.py::[\w\[\]-]+)", output, re.MULTILINE))
    assert failed == set(noticing), output
    assert status == 1


def test_without_a_fault_they_pass(emulator):
    status, output = finish(start(emulator, FOUND, CODES))
    assert status == 0, output
    assert f"of other runs, left alone: {STRANGERS[0]}" in output
    assert "M1  does an idle control socket hold a Sprite running" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(emulator, number):
    process = start(emulator, "test_commands.py")
    end = time.monotonic() + 60
    while len(names(emulator)) == len(STRANGERS) or ask(emulator, "GET", "/_emulator/state")["started"] < 3:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    status, output = finish(process)
    assert status == 2, output


def test_a_lost_answer_leaves_nothing(emulator):
    """A creation that happened although it was answered with an error."""
    ask(emulator, "POST", "/_emulator/faults", {"name": "create_500", "created": True, "count": 1})
    status, output = finish(start(emulator, FOUND))
    assert ask(emulator, "GET", "/_emulator/state")["created"] == 1 + len(STRANGERS), output
    assert status == 0, output


@pytest.mark.parametrize("after", [False, True], ids=["of the deletion", "of a lookup as well"])
def test_a_false_404_leaves_nothing(emulator, after):
    for method in ("DELETE", "GET")[:1 + after]:
        ask(emulator, "POST", "/_emulator/faults", {"name": "false_404", "count": 1, "match": {"method": method, "path": "/v1/sprites/conformance-????????-?"}})
    status, output = finish(start(emulator, CODES))
    assert all(fault["hits"] for fault in ask(emulator, "GET", "/_emulator/faults")["faults"]), output
    assert status == 0, output


def test_the_page_names_tests_that_exist():
    """And no reliance of docs/SPRITES.md is without one."""
    page = (HERE.parent.parent / "docs" / "SPRITES.md").read_text(encoding="utf-8")
    tests = set(re.findall(r"^async def test_(\w+)\(", "".join(path.read_text() for path in (HERE / "contract").glob("test_*.py")), re.MULTILINE))
    rows = [row.split(" | ") for row in page.partition("## Reliances")[2].partition("\n## ")[0].splitlines() if row.startswith("| ")]
    hows = [row[-1].rstrip(" |") for row in rows if row[0] != "| Relies on"]
    assert len(hows) > 25
    for how in hows:
        named = set(re.findall(r"[a-z]+(?:_[a-z]+)+|(?<=E )signals", how))
        assert how.startswith("U;") or named, how
        assert named <= tests, named - tests


def run_live(**env):
    """./tests/run sprites --live: exit status and output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPRITEGATE_")}
    done = subprocess.run([sys.executable, HERE.parent / "parts.py", "sprites", "--live"], env={**clean, **env}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("env", [
    {}, {"SPRITEGATE_SPRITES_URL": "https://sprites.invalid"}, {"SPRITEGATE_SPRITES_TOKEN": "a/secret/token"},
    {"SPRITEGATE_SPRITES_URL": "http://sprites.invalid", "SPRITEGATE_SPRITES_TOKEN": "a/secret/token"},
    {"SPRITEGATE_SPRITES_URL": "sprites.invalid", "SPRITEGATE_SPRITES_TOKEN": "a/secret/token"}],
    ids=["nothing", "no token", "no URL", "in the clear", "no scheme"])
def test_live_refuses_to_start(env):
    status, output = run_live(**env)
    assert status != 0
    assert "would create" in output
    assert "a/secret/token" not in output
    assert "===" not in output, "no part was begun"
