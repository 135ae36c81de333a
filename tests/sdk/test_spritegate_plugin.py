"""deploy/datasette/plugins/spritegate.py in a real Datasette with its agent, through a gateway.

The model follows a script (plugins/scripted.py). The chat goes through the same gateway as the commands.
"""
import asyncio
import concurrent.futures
import contextlib
import importlib.util
import json
import math
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import types

import datasette_agent_sprites
import httpx
import pytest
from datasette.app import Datasette
from datasette.tokens import TokenRestrictions
from datasette.utils import StartupError

import conversation
import gateways
from agent import Agent, until_up
from emulator_client import PATIENCE
from front import Front
from processes import go_on, new_mark, running
from rig import TOP, until

PLUGIN = TOP / "deploy/datasette/plugins/spritegate.py"
MODEL = TOP / "tests/sdk/plugins/scripted.py"
# All that are installed but datasette-agent-sprites.
OTHERS = "datasette-agent,datasette-llm,datasette-secrets"
PROGRAM = [sys.executable, "-m", "datasette"]
SETTINGS = """
permissions:
  datasette-agent: {id: [alice, bob, eve]}
  agent-exec: {id: [alice, bob]}
databases:
  data: {allow: {id: alice}}
plugins:
  datasette-llm: {default_model: scripted}
  spritegate: {url: "%s", sprites_per_actor: 2}
"""


class Place:
    """A Datasette whose agent runs commands through a gateway, which reads from that Datasette."""

    def __init__(self, folder, gateway, front, env):
        self.gateway, self.front, self.env = gateway, front, env
        self.socket = folder / "socket"
        plugins = folder / "plugins"
        plugins.mkdir()
        for plugin in (PLUGIN, MODEL):
            (plugins / plugin.name).symlink_to(plugin)
        (folder / "datasette.yml").write_text(SETTINGS % front.url)
        with contextlib.closing(sqlite3.connect(folder / "data.db")) as database, database:
            database.execute("create table people (name text)")
            database.executemany("insert into people values (?)", [(f"person {n}",) for n in range(500)])
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, "serve", folder / "data.db", "--uds", self.socket, "--internal", folder / "internal.db",
                 "--config", folder / "datasette.yml", "--plugins-dir", plugins], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def token(self, actor, restricted_to=()):
        """An API token of Datasette, for all that its actor may or for some of it."""
        restrictions = TokenRestrictions(all=list(restricted_to)) if restricted_to else None
        return asyncio.run(Datasette([], secret=self.env["DATASETTE_SECRET"]).create_token(actor, restrictions=restrictions))

    def http(self, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.gateway.url, headers=headers, timeout=PATIENCE, trust_env=False)


def without_httpx(folder):
    """A path for modules on which there is none: Datasette does not bring it."""
    path = folder / "modules"
    path.mkdir()
    (path / "httpx.py").write_text("raise ImportError('httpx is not installed')")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    with contextlib.ExitStack() as stack:
        gateway = gateways.start(stack, f"unix:{folder / 'socket'}", pool_hot=2)
        env = {**os.environ, "DATASETTE_SECRET": secrets.token_hex(16), "DATASETTE_SECRETS_SPRITEGATE_TOKEN": gateway.token, "LLM_USER_PATH": str(folder),
               "DATASETTE_LOAD_PLUGINS": OTHERS, "PYTHONPATH": str(without_httpx(folder))}
        front = Front(gateway.port)
        stack.callback(front.close)
        place = Place(folder, gateway, front, env)
        stack.callback(place.process.wait, PATIENCE)
        stack.callback(place.process.terminate)
        with place.http() as http:
            until_up(http, place.process, place.log)
        yield place


@pytest.fixture(scope="module")
def alice(place):
    with place.http(place.token("alice")) as http:
        yield Agent(http)


@pytest.fixture(scope="module")
def bob(place):
    with place.http(place.token("bob")) as http:
        yield Agent(http)


@pytest.fixture(scope="module")
def work(alice):
    """A Sprite of alice's, which bob knows nothing of."""
    assert alice.call("create_sprite", name="work") == {"name": "work", "status": "cold", "url": None}
    return {"name": "work"}


def test_a_command(alice):
    ran = alice.call("run_command", command="echo out; echo err >&2; cat; exit 3", stdin="in\n", files={"a/b": "c"})
    assert ran == {"stdout": "out\nin\n", "stderr": "err\n", "exit_code": 3}
    assert alice.call("run_command", command="printf 'ü\\377'")["stdout"] == "ü\N{REPLACEMENT CHARACTER}"
    cut = alice.call("run_command", command="sleep 100", timeout_seconds=3)
    assert cut == {"stdout": "", "stderr": "", "exit_code": None, "outcome": "timed_out"}


def test_refusals(alice):
    told = alice.call("run_command", command="", timeout_seconds=0)["error"]
    assert "/command" in told and "/timeout_seconds" in told and "invalid-request" in told
    assert "source-failed" in alice.call("run_command", command="cat", stdin={"datasette": "/no/such.csv"})["error"]


def starts(place):
    return sum(place.gateway.sprites.state()["starts"].values())


def test_a_session_is_not_a_parameter(place, alice, bob, work):
    """Its name can be computed: a model is not let into the Sprite of somebody else by it."""
    [session] = [one["name"] for one in place.gateway.get("/-/agent/exec/sessions", headers={"Authorization": f"Bearer {place.gateway.token}"}).json()["sessions"]
                 if one["name"].endswith(".work")]
    alice.call("write_sprite_file", **work, path="/tmp/private", content="alice's")
    before = starts(place)
    assert bob.call("run_command", command="cat /tmp/private", session=session) == {"error": "There is no parameter session; nothing was done."}
    assert starts(place) == before


def test_rows_are_not_written(place, alice):
    """The actor may, and gave no such right to the model."""
    rows, before = {"datasette": "/data/people/-/insert"}, starts(place)
    told = alice.call("run_command", command="echo '[{\"name\": \"new\"}]'", stdout_to=rows, outputs=["a"])
    assert told == {"error": "There is no parameter outputs, stdout_to; nothing was done."}
    assert alice.call("get_sprite", name="work", session="x")["error"].startswith("There is no parameter session")
    assert starts(place) == before


def test_arguments_that_make_no_sense(place, alice, work):
    """A model may say anything. It is told what was wrong, and no more than fits."""
    before, code = starts(place), {**work, "command": "id"}
    calls = [("list_sprites", {"prefix": 5}), ("create_sprite", {}), ("create_sprite", {"name": None}), ("get_sprite", {"name": ["work"]}),
             ("exec_on_sprite", {**code, "command": ["id"]}), ("exec_on_sprite", {**code, "working_directory": 1}), ("delete_sprite", {"name": {}}),
             ("read_sprite_file", {**work, "path": 1}), ("write_sprite_file", {**work, "path": "/tmp/a"}), ("run_command", {}),
             ("read_command_output", {"exec_id": ["a"]}), ("read_command_output", {"exec_id": "a", "offset": "1"})]
    [told] = alice.say([calls])
    assert all("missing, or of the wrong type" in result["error"] for result in told), told
    for wrong in (math.nan, "half of a character: \ud83d", ["a"]):
        assert "(malformed-request)" in (told := alice.call("run_command", command=wrong)["error"]) or "(invalid-request)" in told, told
    for long in ("x" * 20_000, "\1" * 20_000):
        assert len(json.dumps(alice.call("run_command", command="id", **{long: 1}))) < 10_000
    assert starts(place) == before


def test_data_is_read_as_the_actor(place, alice, bob):
    count = {"command": "wc -l", "stdin": {"datasette": "/data/people.csv?_stream=on"}}
    assert alice.call("run_command", **count)["stdout"].strip() == "501"
    assert alice.call("run_command", command="head -2 people | tail -1", files={"people": count["stdin"]})["stdout"].strip().endswith("person 0")
    assert "source-failed" in bob.call("run_command", **count)["error"]
    # One that may less than its actor is not made up for.
    with place.http(place.token("alice", ["datasette-agent", "agent-exec", "view-instance"])) as http:
        restricted = Agent(http)
        assert "restricted" in restricted.call("run_command", **count)["error"]
        assert restricted.call("run_command", command="echo ok")["stdout"] == "ok\n"
        assert restricted.call("run_command", command="cat", stdin={"base64": "b2s="})["stdout"] == "ok"


def test_nobody_else_runs_commands(place):
    with place.http(place.token("eve")) as http:
        told = Agent(http).turn([[("run_command", {"command": "id"}), ("list_sprites", {})]])[1]
    assert told == [[f'Error: tool "{name}" does not exist' for name in ("run_command", "list_sprites")]]


def test_the_credentials_stay_away_from_the_command(place, alice):
    ran = alice.call("run_command", command="env; cat", stdin={"datasette": "/-/actor.json"})
    assert '"alice"' in ran["stdout"]
    for secret in ("dstok_", "sgt_", place.gateway.token):
        assert secret not in json.dumps(ran)


def test_long_output(alice, bob):
    ran = alice.call("run_command", command="seq 100000; yes '\N{GRINNING FACE}\"' | head -c 200000 >&2")
    assert len(json.dumps(ran)) < 10_000 and "agent_output_truncated" not in ran
    assert ran["stdout"].startswith("1\n2\n") and ran["stdout"].endswith("99999\n100000\n") and "characters left out" in ran["stdout"]
    assert ran["stderr"].startswith("\N{GRINNING FACE}")
    text, offset = "", 0
    while offset is not None and len(text) < 20_000:
        page = alice.call("read_command_output", exec_id=ran["exec_id"], offset=offset)
        text, offset = text + page["text"], page["next_offset"]
    assert text == "".join(f"{n}\n" for n in range(1, 100_001))[:len(text)] and len(text) >= 20_000
    gone = {"error": "Nothing is known of this command any more."}
    assert bob.call("read_command_output", exec_id=ran["exec_id"]) == gone
    assert alice.call("read_command_output", exec_id="../quota") == gone


def test_a_long_path(alice, work):
    """It is told twice, and a model is told no more than fits."""
    plain, wide = (f"/tmp/long/{'/'.join([letter * 120] * 16)}/file" for letter in ("a", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"))
    wrote = alice.call("write_sprite_file", **work, path=plain, content="one")
    assert wrote == {"ok": True, "path": plain, "message": f"Wrote 3 characters to {plain}"}
    wrote = alice.call("write_sprite_file", **work, path=wide, content="two")
    assert len(json.dumps(wrote)) < 10_000 and "agent_output_truncated" not in wrote, wrote
    assert wrote["ok"] and wrote["message"] == f"Wrote 3 characters to {wrote['path']}"
    assert wrote["path"].startswith(wide[:200]) and wrote["path"].endswith(wide[-200:]) and "characters left out" in wrote["path"]
    assert alice.call("exec_on_sprite", **work, command="cat $(find /tmp/long -name file | sort)")["stdout"] == "onetwo"


def test_long_output_in_its_longest_form(alice):
    """What takes the most room as JSON is kept as well."""
    ran = alice.call("run_command", command="head -c 300000 /dev/zero | tr '\\0' '\\1' | tee /dev/stderr")
    assert ran["truncated"] == ["stdout", "stderr"] and "read_command_output" in ran["note"]
    for stream in ran["truncated"]:
        page = alice.call("read_command_output", exec_id=ran["exec_id"], stream=stream, offset=1000)
        assert page.get("text", "").startswith(1000 * "\1"), page


def test_two_at_once(place, alice, work):
    """A model may ask for several in one step: they meet, those of different Sprites as well."""
    place.gateway.until_ready()
    mark, other = new_mark(), {"name": "other"}
    alice.call("create_sprite", **other)
    calls = [("run_command", {"command": f"sleep {mark}; echo {word}", "timeout_seconds": 300}) for word in ("one", "two")]
    calls += [("exec_on_sprite", {**sprite, "command": f"sleep {mark}; echo {sprite['name']}"}) for sprite in (work, other)]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        met = threads.submit(alice.say, [calls])
        go_on(mark, len(calls))     # when all of them sleep
        [told] = met.result()
        assert [result["stdout"] for result in told] == ["one\n", "two\n", "work\n", "other\n"]
    alice.call("delete_sprite", **other)


def test_an_answer_that_is_lost(place, alice):
    """It is asked for again, and nothing runs twice."""
    before = len(place.gateway.sprites.state()["starts"])
    place.front.lose = 2
    assert alice.call("run_command", command="echo once") == {"stdout": "once\n", "stderr": "", "exit_code": 0}
    assert place.front.lose == 0 and len(place.gateway.sprites.state()["starts"]) == before + 1


def test_a_gateway_that_is_gone(place, alice):
    place.front.lose = 1000
    try:
        told = alice.call("run_command", command="true")
    finally:
        place.front.lose = 0
    assert "cannot be reached" in told["error"] and "not known" in told["error"]


# --- Sprites that stay ---

def test_a_conversation(bob):
    """The same one, with the same results, as in test_datasette_plugin.py."""
    told = bob.say(conversation.STEPS)
    assert [result["url"] for step in told for result in step if "url" in result] == [None, None]
    assert conversation.alike(told) == conversation.TOLD


def test_the_events_of_a_turn(bob):
    events, _ = bob.turn(conversation.STEPS[:1] + conversation.STEPS[-2:-1])
    assert [event for event, _ in events] == 2 * ["tool_call_start", "tool_call_args_chunk", "tool_call", "tool_result", "text_chunk"] + ["done"]


def test_each_actor_has_sprites_of_their_own(alice, bob, work):
    alice.call("write_sprite_file", **work, path="/tmp/whose", content="alice's")
    gone = {"error": "Sprite 'work' not found"}
    strangers = [("get_sprite", work), ("exec_on_sprite", {**work, "command": "cat /tmp/whose"}), ("read_sprite_file", {**work, "path": "/tmp/whose"}),
                 ("write_sprite_file", {**work, "path": "/tmp/whose", "content": "bob's"}), ("delete_sprite", work), ("list_sprites", {})]
    assert bob.say([strangers]) == [[gone] * 5 + [{"sprites": [], "has_more": False}]]
    assert bob.call("create_sprite", **work)["name"] == "work"
    assert bob.call("exec_on_sprite", **work, command="cat /tmp/whose")["exit_code"] == 1
    assert bob.call("delete_sprite", **work)["ok"] is True
    assert alice.call("exec_on_sprite", **work, command="cat /tmp/whose")["stdout"] == "alice's"


def test_names_that_no_sprite_has(alice):
    for name in ("", "../quota", "a/b", "Upper", "a" * 48, "-a", "a.b"):
        told = alice.say([[("create_sprite", {"name": name}), ("exec_on_sprite", {"name": name, "command": "id"}), ("delete_sprite", {"name": name})]])
        gone = {"error": f"Sprite '{name}' not found"}
        assert told[0][0]["error"].startswith("Failed create sprite (status 400)") and told[0][1:] == [gone, gone], name
    longest = {"name": "a" * 47}
    assert [step[0].get("error") for step in alice.say([[("create_sprite", longest)], [("delete_sprite", longest)]])] == [None, None]


def test_an_actor_has_so_many(alice, work):
    """Also when the calls meet."""
    [told] = alice.say([[("create_sprite", {"name": f"more-{number}"}) for number in range(3)]])
    full = {"error": "Failed create sprite (status 429): there are 2 already, and no more may be"}
    assert [result.get("name") or result for result in told] == ["more-0", full, full]
    assert alice.call("create_sprite", name="more-0")["error"].startswith("Failed create sprite (status 409)")
    assert alice.call("delete_sprite", name="more-0")["ok"] is True


def test_a_command_that_does_not_end_plainly(place, alice):
    mark, ending = new_mark(), {"name": "ending"}
    alice.call("create_sprite", **ending)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        ended = threads.submit(alice.call, "exec_on_sprite", **ending, command=f"echo before; sleep {mark}")
        until(lambda: running(mark), "the command sleeps")
        assert alice.call("delete_sprite", **ending)["ok"] is True
        assert ended.result() == {"stdout": "before\n", "stderr": "", "exit_code": None, "outcome": "canceled"}
    alice.call("create_sprite", **ending)
    with place.gateway.sprites.faulty("no_exit_code"):
        lost = alice.call("exec_on_sprite", **ending, command="echo kept")
    assert (lost["stdout"], lost["exit_code"], lost["outcome"]) == ("kept\n", None, "unknown") and "outcome-unknown" in lost["error"]
    assert alice.call("delete_sprite", **ending)["ok"] is True


def test_long_output_of_a_sprite(alice, work):
    events, [[told]] = alice.turn([[("exec_on_sprite", {**work, "command": "seq 100000; seq 100000 >numbers.txt"})]])
    ran = json.loads(told)
    assert ran["stdout"].startswith("1\n2\n") and ran["stdout"].endswith("99999\n100000\n") and "agent_output_truncated" not in ran
    page = alice.call("read_command_output", exec_id=ran["exec_id"], offset=60_000)
    assert page["text"] and page["text"] in "".join(f"{n}\n" for n in range(1, 100_001))
    read = alice.call("read_sprite_file", **work, path="/home/sprite/numbers.txt")
    assert read["text_content"].startswith("1\n2\n") and read["text_content"].endswith("99999\n100000\n") and read["truncated"] == ["text_content"]
    assert alice.http.get(f"/-/agent/sprite-file/{read['file_id']}").text == "".join(f"{n}\n" for n in range(1, 100_001))


def test_commands_on_one_sprite_take_turns(place, alice, work):
    """Those of one step in their order; and nobody else's are in the way for long."""
    appended = [("exec_on_sprite", {**work, "command": f"echo {number} >>order; cat order"}) for number in range(4)]
    [told] = alice.say([appended])
    assert [result["stdout"] for result in told] == ["".join(f"{n}\n" for n in range(number + 1)) for number in range(4)]

    def refused():
        return place.gateway.metrics().get("spritegate_exec_decisions_total", outcome="deny", reason="session")
    [session] = [one["name"] for one in place.gateway.get("/-/agent/exec/sessions", headers={"Authorization": f"Bearer {place.gateway.token}"}).json()["sessions"]
                 if one["name"].endswith(".work")]
    mark, before = new_mark(), refused()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        other = threads.submit(place.gateway.exec, command=f"sleep {mark}; touch other", session=session, timeout_seconds=600)
        until(lambda: running(mark), "the other command sleeps")
        met = threads.submit(alice.call, "exec_on_sprite", **work, command="ls other")
        until(lambda: refused() > before, "the session was busy")
        go_on(mark)
        assert other.result().json()["outcome"] == "exited" and met.result()["stdout"] == "other\n"


def test_an_answer_about_a_sprite_that_is_lost(place, alice, work):
    """No command runs twice; what only looks is asked again."""
    place.front.lose = 1        # the list of sessions
    assert alice.call("exec_on_sprite", **work, command="echo x >>once; wc -l <once")["stdout"] == "1\n"
    place.front.spare, place.front.lose = 1, 1      # the command's
    assert alice.call("exec_on_sprite", **work, command="echo x >>twice; wc -l <twice")["stdout"] == "1\n"
    assert place.front.lose == 0


def test_the_same_call_in_another_conversation_is_another_one(alice, work):
    """Both are call_0_0."""
    for lines in (1, 2):
        assert alice.call("exec_on_sprite", **work, command="echo x >>calls; wc -l <calls")["stdout"] == f"{lines}\n"


def test_an_id_that_comes_again_in_a_conversation(place, alice, work):
    """Some models count their calls anew in each turn: what was said before is not told in place of what another command says, or the same one later."""
    conversation = alice.begin()
    again = {**work, "command": "echo x >>again; wc -l <again"}
    for lines in (1, 2):
        assert json.loads(alice.turn([[("exec_on_sprite", again)]], conversation)[1][0][0])["stdout"] == f"{lines}\n"
    place.front.spare, place.front.lose = 1, 1      # the command's, after the list of sessions
    assert json.loads(alice.turn([[("exec_on_sprite", again)]], conversation)[1][0][0])["stdout"] == "3\n" and place.front.lose == 0
    for word in ("one", "two"):
        _, [[ran, on_sprite]] = alice.turn([[("run_command", {"command": f"echo {word}"}), ("exec_on_sprite", {**work, "command": f"echo {word}"})]], conversation)
        assert [json.loads(told)["stdout"] for told in (ran, on_sprite)] == [f"{word}\n"] * 2


def test_files_are_shown_to_who_has_read_them(place, alice, work):
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    name = "a\"'<b>\n.svg"
    alice.call("write_sprite_file", **work, path=f"/tmp/{name}", content=svg)
    events, [[told]] = alice.turn([[("read_sprite_file", {**work, "path": f"/tmp/{name}"})]])
    [(url, alt)] = conversation.images(events)
    assert "_html" not in told and alt == "a&quot;&#x27;&lt;b&gt;\n.svg"
    shown = alice.http.get(url)
    assert (shown.status_code, shown.text, shown.headers["Content-Type"]) == (200, svg, "image/svg+xml")
    assert shown.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'") and shown.headers["X-Content-Type-Options"] == "nosniff"
    assert shown.headers["Content-Disposition"] == "inline; filename*=UTF-8''a%22%27%3Cb%3E%0A.svg"
    alice.call("write_sprite_file", **work, path="/tmp/page.xhtml", content="<html/>")
    link = alice.call("read_sprite_file", **work, path="/tmp/page.xhtml")["download_url"]
    assert alice.http.get(link).headers["Content-Disposition"].startswith("attachment;")

    restricted = place.token("alice", ["datasette-agent", "view-instance"])
    for token, status in ((place.token("bob"), 404), (place.token("eve"), 403), (None, 403), (restricted, 403)):
        with place.http(token) as http:
            answer = http.get(url)
        assert answer.status_code == status and svg not in answer.text
    assert alice.http.get("/-/agent/sprite-file/" + 32 * "0").status_code == 404


# --- the plugin by itself ---

@pytest.fixture
def plugin(monkeypatch):
    """Its module, beside no Datasette."""
    spec = importlib.util.spec_from_file_location("spritegate_by_itself", PLUGIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_installed_by_pip(tmp_path):
    """From a copy, since that leaves files beside the source."""
    shutil.copytree(PLUGIN.parent, tmp_path / "source")
    installed = tmp_path / "installed"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index",
                    "--target", installed, tmp_path / "source"], stdin=subprocess.DEVNULL, check=True)
    env = {name: value for name, value in os.environ.items() if name != "DATASETTE_LOAD_PLUGINS"} | {"PYTHONPATH": str(installed)}
    plugins = json.loads(subprocess.run([*PROGRAM, "plugins"], env=env, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout)
    [loaded] = [each for each in plugins if each["name"] == "datasette-spritegate"]
    assert loaded["version"] == "0.1.0" and {"register_actions", "register_agent_tools", "register_routes"} <= set(loaded["hooks"])


def test_settings_that_make_no_sense(plugin):
    for given in ({"sprite": True}, {"sprites": "yes"}, {"url": 1}, {"timeout_seconds": True}, {"timeout_seconds": 0}, {"sprites_per_actor": 0}):
        with pytest.raises(StartupError, match="spritegate: .*" + next(iter(given))):
            plugin.check_settings(types.SimpleNamespace(plugin_config=lambda name, given=given: given))


def test_the_token_comes_from_either_place(plugin, monkeypatch):
    def tools():
        return asyncio.run(plugin.register_agent_tools(Datasette([])))
    for name in ("SPRITEGATE_TOKEN", "DATASETTE_SECRETS_SPRITEGATE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert tools() == []
    monkeypatch.setenv("SPRITEGATE_TOKEN", "sgt_environment")
    assert asyncio.run(plugin.token(Datasette([]))) == "sgt_environment" and len(tools()) == 9


def test_the_tools_are_those_of_the_original(plugin, monkeypatch):
    """By their names and parameters; the descriptions are our own, and the permission is there."""
    def told(tools):
        return {tool.name: ({name: what["type"] for name, what in tool.input_schema["properties"].items()}, tool.input_schema.get("required", []))
                for tool in tools}
    monkeypatch.setenv("DATASETTE_SECRETS_SPRITES_API_KEY", "token")
    ours = plugin.sprite_tools()
    assert told(ours) == told(asyncio.run(datasette_agent_sprites.register_agent_tools(Datasette([]))))
    assert {tool.required_permission for tool in ours} == {"agent-exec"}


@pytest.fixture
def wire(plugin, monkeypatch):
    """A connection whose requests come to what is given, an answer or an error each after so many seconds; with how patient each of them was."""
    def prepare(*given):
        clock, left, patient = [1000.0], iter(given), []

        class Client:
            def __init__(self, timeout, **_):
                patient.append(timeout.read)

            async def __aenter__(self):
                return self

            async def __aexit__(self, *_):
                pass

            async def request(self, *_, **__):
                seconds, come_to = next(left)
                clock[0] += seconds
                if isinstance(come_to, Exception):
                    raise come_to
                return types.SimpleNamespace(json=lambda: come_to)

        async def sleep(seconds):
            clock[0] += seconds
        monkeypatch.setattr(plugin, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
        monkeypatch.setattr(plugin, "asyncio", types.SimpleNamespace(sleep=sleep))
        monkeypatch.setattr(plugin.httpx, "AsyncClient", Client)
        return patient
    return prepare


def test_a_connection_that_breaks_late(plugin, wire):
    """The command is still being ended then; what it had printed is worth the wait."""
    busy, ended = {"ok": False, "code": "idempotency-in-progress"}, {"ok": False, "outcome": "canceled", "stdout": "before"}
    datasette, headers = types.SimpleNamespace(plugin_config=lambda name: None), {"Idempotency-Key": "k"}
    broken = (plugin.BUSY_SECONDS + 1, plugin.httpx.ReadError("broken"))
    wire(broken, (0, busy), (0, busy), (0, ended))
    assert asyncio.run(plugin.ask(datasette, "POST", plugin.PATH, headers, json={})) == ended
    wire(broken, *[(plugin.BUSY_SECONDS / 4, busy)] * 10)
    assert asyncio.run(plugin.ask(datasette, "POST", plugin.PATH, headers, json={})) == busy


def test_a_call_has_its_key_until_it_has_ended(plugin, wire, monkeypatch):
    monkeypatch.setenv("SPRITEGATE_TOKEN", "sgt_x")
    datasette, keys = types.SimpleNamespace(plugin_config=lambda name: None), []
    call = types.SimpleNamespace(conversation_id="c", tool_call_id="call_0", tool_name="run_command", arguments={"command": "date"})

    async def run():
        keys.append(plugin.once(call)["Idempotency-Key"])
        return await plugin.run_command(datasette=datasette, actor=None, context=call, command="date")
    broken, printed = (0, plugin.httpx.ReadError("broken")), (0, {"ok": True, "outcome": "exited", "exit_code": 0, "stdout": "now"})
    refused = (0, {"ok": False, "code": "quota-exceeded", "detail": "later"})
    for come_to, word in (([broken] * plugin.TRIES, "cannot be reached"), ([printed], "now"), ([printed], "now"), ([refused], "later"), ([printed], "now")):
        wire(*come_to)
        assert word in asyncio.run(run())
    assert keys[0] == keys[1] and len(set(keys)) == 4
    monkeypatch.setattr(plugin, "CALLS_KEPT", 1)
    call.tool_call_id = "call_1"
    wire(printed)
    asyncio.run(run())
    assert len(plugin.ended) == 1


def test_a_long_command_is_waited_for(plugin, wire):
    datasette = types.SimpleNamespace(plugin_config=lambda name: None)
    for asked, seconds in ((None, 0), (3000, 3000), (0.5, 0.5), (1e300, 3600), (-1, 0), ("5", 0)):
        patient = wire((0, {"ok": True}))
        asyncio.run(plugin.ask(datasette, "POST", plugin.PATH, json={"timeout_seconds": asked}))
        assert patient == [plugin.SILENCE_SECONDS + seconds], asked


def test_how_long_a_command_on_a_sprite_may_take(plugin, monkeypatch):
    async def in_sprite(*_, **fields):
        return {"ok": True, "outcome": "exited", "exit_code": 0, "stdout": str(fields["timeout_seconds"])}
    monkeypatch.setattr(plugin, "in_sprite", in_sprite)
    call = types.SimpleNamespace(conversation_id=None, tool_call_id=None)
    for given, seconds in (({}, "300"), ({"timeout_seconds": 7}, "7")):
        datasette = types.SimpleNamespace(plugin_config=lambda name, given=given: given)
        ran = asyncio.run(plugin.exec_on_sprite(datasette=datasette, actor={"id": "a"}, context=call, name="work", command="id"))
        assert json.loads(ran)["stdout"] == seconds


@pytest.fixture
def answers(plugin, monkeypatch):
    """What the gateway will say; with what it was asked. The actor `a` has a Sprite `work`."""
    def prepare(*bodies):
        asked, left = [], iter(bodies)

        async def ask(datasette, method, path, *_, **more):
            asked.append((method, path))
            return next(left)
        monkeypatch.setattr(plugin, "ask", ask)
        return asked
    prepare.session = plugin.session_of({"id": "a"}, "work")
    prepare.there = {"ok": True, "sessions": [{"name": prepare.session, "busy": False, "idle_seconds": 1}]}
    prepare.new = {"ok": True, "outcome": "exited", "exit_code": 0, "sandbox": {"session": {"created": True}}}
    prepare.lost = {"ok": False, "code": "session-lost"}
    return prepare


def test_a_sprite_that_ends_before_its_command(plugin, answers):
    """What ran in a new and empty one is not passed off as the old one's."""
    asked = answers(answers.there, answers.new, {"ok": True})
    with pytest.raises(plugin.Refused, match="Sprite 'work' not found"):
        asyncio.run(plugin.in_sprite(None, {"id": "a"}, "work"))
    assert asked[-1] == ("DELETE", f"/-/agent/exec/sessions/{answers.session}")


def test_a_sprite_that_is_lost(plugin, answers):
    """It is not there any more, and its name is free."""
    answers(answers.there, answers.lost)
    with pytest.raises(plugin.Refused, match="Sprite 'work' not found"):
        asyncio.run(plugin.in_sprite(None, {"id": "a"}, "work"))
    answers(answers.there, answers.lost, answers.new)
    call = types.SimpleNamespace(conversation_id=None, tool_call_id=None)
    datasette = types.SimpleNamespace(plugin_config=lambda name: None)
    made = asyncio.run(plugin.create_sprite(datasette=datasette, actor={"id": "a"}, context=call, name="work"))
    assert json.loads(made)["name"] == "work"


def test_old_files_go(plugin, monkeypatch):
    async def kept():
        datasette = Datasette([])
        database = datasette.get_internal_database()
        await database.execute_write(plugin.FILES_TABLE)
        for number, actor in enumerate(["bob", "alice", "alice", "alice"]):
            await plugin.keep_file(datasette, {"id": actor}, f"file {number}", "text/plain", bytes(10))
        names = (await database.execute("select file_name from spritegate_files order by number")).rows
        monkeypatch.setattr(plugin, "FILES_SECONDS", -1)
        await plugin.keep_file(datasette, {"id": "alice"}, "late", "text/plain", b"")
        return [row[0] for row in names], (await database.execute("select count(*) from spritegate_files")).first()[0]
    monkeypatch.setattr(plugin, "FILES_BYTES", 25)
    assert asyncio.run(kept()) == (["file 0", "file 2", "file 3"], 0)


def test_beside_the_original_it_does_not_start(place, tmp_path):
    """Unless its own Sprites are switched off."""
    env = {name: value for name, value in place.env.items() if name not in ("DATASETTE_LOAD_PLUGINS", "PYTHONPATH")}

    def start(sprites):
        settings = tmp_path / f"{sprites}.json"
        settings.write_text(json.dumps({"plugins": {"spritegate": {"sprites": sprites}}}))
        return subprocess.run([*PROGRAM, "serve", "--plugins-dir", PLUGIN.parent, "--config", settings, "--get", "/-/plugins.json"],
                              env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        refused, beside = threads.map(start, (True, False))
    assert refused.returncode and "spritegate: datasette-agent-sprites has tools and a route of the same names" in refused.stderr
    assert beside.returncode == 0 and {"spritegate.py", "datasette-agent-sprites"} <= {one["name"] for one in json.loads(beside.stdout)}
