"""docs/API.md: its examples are run as they stand, and answer as it says."""
import json
import re
import subprocess
import sys

import pytest

from rig import BINARY, PYTHON, TOP, clean_environment, until

sys.path.append(str(TOP / "tests/fixtures"))
import sample  # noqa: E402

PAGE = (TOP / "docs/API.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# Each shell block with the block that follows at once: what it prints.
EXAMPLES = [(command, expected or None) for command, expected in
            re.findall(r"^```sh\n(.*?)^```\n(?:```\n(.*?)^```\n)?", PAGE, re.MULTILINE | re.DOTALL)]
VOLATILE = {"duration_ms", "admit", "claim", "exec", "remaining", "reset_seconds", "used_ms", "held_ms", "running",
            "age_seconds", "idle_seconds", "ends_in_seconds"}
# Of each answer, before jq takes what it wants of it.
SEEING = 'curl() { command curl "$@" | tee -a "$SEEN"; }\n'


class Shell:
    """The page's own lines, with an address and tokens of ours, before each command."""

    def __init__(self, folder, **values):
        self.seen = folder / "seen"
        self.first = SEEING + next(text for kind, text in BLOCKS if not kind and text.startswith("GATEWAY="))
        for name, value in values.items():
            self.first, count = re.subn(f"^{name}=.*$", f"{name}={value}", self.first, flags=re.MULTILINE)
            assert count == 1, name

    def run(self, command, expected=None):
        """What it prints. The gateway must not have said that anything failed, unless the page says so."""
        self.seen.write_bytes(b"")
        env = clean_environment({"LC_ALL": "C.UTF-8", "SEEN": str(self.seen)})
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", self.first + command], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}{done.stdout}"
        check_failures(self.seen.read_text(encoding="utf-8"), expected or "")
        return done.stdout


def check_failures(seen, expected):
    seen = re.sub(r'": +', '":', seen)
    codes = re.findall(r'"code":"?([a-z-]+|-?\d+)', seen)
    assert codes or not re.search(r'"ok":false|"isError":true', seen), f"it failed: {seen}"
    told = codes + re.findall(r'"outcome":"(?!exited")(\w+)"', seen) + re.findall(r'"exit_code":([1-9]\d*)', seen)
    assert all(re.search(rf"[\":]{word}\b", expected) for word in told), f"the page does not show {told}: {seen}"


@pytest.fixture(scope="module")
def datasette_token():
    """As the page says."""
    made = subprocess.run([PYTHON, "-m", "datasette", "create-token", "root", "--secret", sample.SECRET], env=clean_environment(),
                          capture_output=True, text=True, timeout=60, check=True)
    assert f"`datasette create-token root --secret '{sample.SECRET}'`" in PAGE
    return made.stdout.strip()


@pytest.fixture
def shell(stack, tmp_path, datasette_token):
    return Shell(tmp_path, GATEWAY=stack.url, TOKEN=stack.token, DSTOK=datasette_token)


@pytest.fixture
def open_shell(rig, tmp_path, datasette_token):
    """Before a gateway that takes whom Datasette knows."""
    gateway = rig.gateway(identity_rules=json.dumps([{"policy": "api-page", "allow": {"id": "root"}}]), pool_hot=1, token=False)
    env = {name: gateway.settings[name] for name in ("SPRITEGATE_REDIS_URL", "SPRITEGATE_PEPPER")}
    subprocess.run([BINARY, "policy", "set", "api-page", "--conc", "3"], env=clean_environment(env), timeout=60, check=True)
    gateway.until_ready()
    return Shell(tmp_path, GATEWAY=gateway.url, DSTOK=datasette_token)


def as_said(said, printed):
    pattern = re.escape(said.strip()).replace("…", r".*?")
    return re.fullmatch(pattern.replace("\\\n", "\r?\n"), printed.replace("\r", "").strip())


@pytest.mark.parametrize("command, expected", EXAMPLES, ids=[str(i) for i in range(len(EXAMPLES))])
def test_examples(stack, request, command, expected):
    stack.until_ready()
    without_token = '"Authorization: Bearer $DSTOK"' in command
    printed = request.getfixturevalue("open_shell" if without_token else "shell").run(command, expected)
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
    elif isinstance(said, list):
        assert len(said) == len(got), f"{where}: {got!r}"
        for number, (one, other) in enumerate(zip(said, got)):
            compare(one, other, f"{where}/{number}")
    elif not (isinstance(said, str) and "…" in said):
        assert said == got, f"{where}: {got!r}"


def said_with(member):
    return next(json.loads(text) for kind, text in BLOCKS if kind == "json" and f'"{member}"' in text)


def test_the_answer(stack, shell):
    stack.until_ready()
    compare(said_with("stdout_bytes"), json.loads(shell.run(EXAMPLES_OF_THE_ANSWER)), "")


def test_the_quota(stack):
    minted = stack.mint(actor="ann", rate="60/1m", burst=10, conc=3, budget="10m/day", egress="defaults,example.com")
    compare(said_with("actor_concurrency"), stack.get("/-/agent/exec/quota", headers={"Authorization": f"Bearer {minted['token']}"}).json(), "")


def test_the_sessions(stack):
    token = stack.mint(sessions=3)["token"]
    headers = {"Authorization": f"Bearer {token}"}
    stack.run("true", token=token, session="notes")
    stack.until_settled(token)
    compare(said_with("ends_in_seconds"), stack.get("/-/agent/exec/sessions", headers=headers).json(), "")
    assert stack.http.delete("/-/agent/exec/sessions/notes", headers=headers).json()["ok"]


def test_the_trace_is_in_the_log(stack, shell):
    command = next(command for command, _ in EXAMPLES if "traceparent" in command)
    [trace] = re.findall("traceparent: 00-([0-9a-f]{32})-", command)
    shell.run(command)
    until(lambda: f'"trace_id":"{trace}"' in stack.log.replace('": "', '":"'), "the log names the caller's trace")


@pytest.mark.parametrize("seen, expected", [
    ('{"ok":false,"status":502,"code":"source-failed","outcome":"not_started"}', "null"), ('{"ok":false}', "null"), ('{"ok":true,"outcome":"timed_out"}', None),
    ('{"ok": true, "outcome": "exited", "exit_code": 3}', "x"), ('{"result":{"isError":true}}', "true"), ('{"error":{"code":-32602}}', "null"),
    ('{"ok":false,"code":"missing-token"}', '[401,"invalid-request"]')])
def test_a_failure_that_jq_hides_is_seen(seen, expected):
    with pytest.raises(AssertionError):
        check_failures(seen, expected or "")


EXAMPLES_OF_THE_ANSWER = next(command for command, _ in EXAMPLES if "wc -l" in command)


# What a shell beside the gateway cannot show; the tests do.
ELSEWHERE = {"From Datasette Agent": "sdk/test_spritegate_plugin.py", "The admin listener": "integration/test_status_page.py"}


def test_every_part_has_an_example():
    parts = re.split(r"^##+ (.*)\n", PAGE, flags=re.MULTILINE)[1:]
    parts = dict(zip(parts[::2], parts[1::2]))
    assert len(parts) > 15
    assert {heading for heading, text in parts.items() if "```sh\n" not in text} == set(ELSEWHERE)
    for heading, test in ELSEWHERE.items():
        assert (TOP / "tests" / test).exists() and test in parts[heading], heading


# In place of curl: the bodies that would be sent, with a NUL after each.
SENDING = r"""curl() { while [ $# -gt 0 ]; do case $1 in
  -d) if [ "$2" = @- ]; then cat; else printf %s "$2"; fi; printf '\0';;
  -F) case $2 in request=*) printf '%s\0' "${2#request=}";; esac;;
esac >>"$SENT"; shift; done; }
"""
FIELDS = json.loads((TOP / "gateway/endpoint/openapi.json").read_text(encoding="utf-8"))["components"]["schemas"]["Request"]["properties"]


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """What the examples ask for; those of MCP have another form."""
    sent = tmp_path_factory.mktemp("examples") / "sent"
    first = SENDING + next(text for kind, text in BLOCKS if not kind and text.startswith("GATEWAY="))
    for command, _ in EXAMPLES:
        subprocess.run(["bash", "-c", first + command], env=clean_environment({"SENT": str(sent)}), stdin=subprocess.DEVNULL, capture_output=True,
                       timeout=60, check=False)
    bodies = [json.loads(text) for text in sent.read_text(encoding="utf-8").split("\0") if text]
    return [body for body in bodies if "jsonrpc" not in body]


def kinds_of(schema):
    """Of sources: the member that says where it is from."""
    if "oneOf" in schema:
        return set().union(*map(kinds_of, schema["oneOf"]))
    return set(schema.get("required", ["string"]))


def kinds(sources):
    return set().union(*({"string"} if isinstance(source, str) else set(source) - {"mode"} for source in sources))


def test_every_field_has_an_example(requests):
    assert set().union(*requests) == set(FIELDS)


def test_every_kind_of_source_has_an_example(requests):
    assert kinds(body["stdin"] for body in requests if "stdin" in body) == kinds_of(FIELDS["stdin"])
    files = [source for body in requests for source in body.get("files", {}).values()]
    assert kinds(files) == kinds_of(FIELDS["files"]["additionalProperties"])


def test_every_way_to_write_rows_has_an_example(requests):
    targets = [body["stdout_to"] for body in requests if "stdout_to" in body]
    assert set().union(*targets) == set(FIELDS["stdout_to"]["properties"])
    assert {target["datasette"].rpartition("/")[2] for target in targets} == {"create", "insert", "upsert"}
    assert {"csv", "ndjson"} <= {target.get("format") for target in targets}
