"""deploy/datasette/plugins/spritegate.py in a real Datasette with its agent, through a gateway.

The model is llm-echo: it makes the tool calls that the user's message asks for, and says what it was told.
"""
import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import secrets
import sqlite3
import subprocess
import sys

import httpx
import pytest
from datasette.app import Datasette
from datasette.tokens import TokenRestrictions

import gateways
from emulator_client import PATIENCE
from front import Front
from processes import go_on, new_mark
from rig import TOP
from test_datasette_plugin import Agent, until_up

PLUGINS = TOP / "deploy/datasette/plugins"
PROGRAM = [sys.executable, "-m", "datasette"]
SETTINGS = """
permissions:
  datasette-agent: {id: [alice, bob, eve]}
  agent-exec: {id: [alice, bob]}
databases:
  data: {allow: {id: alice}}
plugins:
  datasette-llm: {default_model: echo}
  spritegate: {url: "%s"}
"""


class Place:
    """A Datasette whose agent runs commands through a gateway, which reads from that Datasette."""

    def __init__(self, folder, gateway, front, env):
        self.gateway, self.front, self.env = gateway, front, env
        self.socket = folder / "socket"
        (folder / "datasette.yml").write_text(SETTINGS % front.url)
        with contextlib.closing(sqlite3.connect(folder / "data.db")) as database, database:
            database.execute("create table people (name text)")
            database.executemany("insert into people values (?)", [(f"person {n}",) for n in range(500)])
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, "serve", folder / "data.db", "--uds", self.socket, "--internal", folder / "internal.db",
                 "--config", folder / "datasette.yml", "--plugins-dir", PLUGINS], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def token(self, actor, restricted_to=()):
        """An API token of Datasette, for all that its actor may or for some of it."""
        restrictions = TokenRestrictions(all=list(restricted_to)) if restricted_to else None
        return asyncio.run(Datasette([], secret=self.env["DATASETTE_SECRET"]).create_token(actor, restrictions=restrictions))

    def http(self, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://datasette", headers=headers, timeout=PATIENCE)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    with contextlib.ExitStack() as stack:
        gateway = gateways.start(stack, f"unix:{folder / 'socket'}", pool_hot=2)
        env = {**os.environ, "DATASETTE_SECRET": secrets.token_hex(16), "DATASETTE_SECRETS_SPRITEGATE_TOKEN": gateway.token, "LLM_USER_PATH": str(folder)}
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


def said(http, calls):
    """All that the model was told, of several calls in one step."""
    conversation = http.post("/-/agent/api/conversations").json()["conversation_id"]
    turn = http.post(f"/-/agent/{conversation}/stream", json={"message": json.dumps({"tool_calls": calls, "prompt": "go on"})})
    events = [(event, json.loads(data)) for event, data in re.findall(r"^event: (.*)\ndata: (.*)$", turn.text, re.MULTILINE)]
    assert events[-1][0] == "done", events
    text = "".join(data["content"] for event, data in events if event == "text_chunk")
    told, end = [], 0
    while end < len(text):      # what the model got in its first step and in its second
        echoed, end = json.JSONDecoder().raw_decode(text, end)
        told += echoed.get("tool_results", [])
    return [result["output"] for result in told]


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


def test_nobody_else_runs_commands(place):
    with place.http(place.token("eve")) as http:
        [told] = said(http, [{"name": "run_command", "arguments": {"command": "id"}}])
    assert told == 'Error: tool "run_command" does not exist'


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


def test_two_at_once(place, alice):
    """A model may ask for several in one step: they meet."""
    place.gateway.until_ready()
    mark = new_mark()
    calls = [{"name": "run_command", "arguments": {"command": f"sleep {mark}; echo {word}"}} for word in ("one", "two")]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        met = threads.submit(said, alice.http, calls)
        go_on(mark, len(calls))     # when all of them sleep
        assert sorted(json.loads(told)["stdout"] for told in met.result()) == ["one\n", "two\n"]


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
