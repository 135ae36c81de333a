"""The unmodified datasette-agent-sprites in a real Datasette works against the emulator.

The model is llm-echo: it makes the tool calls that the user's message asks for.
"""
import contextlib
import json
import os
import pathlib
import re
import secrets
import subprocess
import sys
import time

import httpx
import pytest

from emulator_client import PATIENCE, TOKEN

HERE = pathlib.Path(__file__).resolve().parent


class Agent:
    """A signed-in person who chats with Datasette's agent."""

    def __init__(self, http):
        self.http = http

    def call(self, tool, **arguments):
        """What the tool gave, as the browser is told and as the model is."""
        made = self.http.post("/-/agent/api/conversations")
        assert made.status_code == 200, made.text
        message = json.dumps({"tool_calls": [{"name": tool, "arguments": arguments}], "prompt": "go on"})
        turn = self.http.post(f"/-/agent/{made.json()['conversation_id']}/stream", json={"message": message})
        events = [(event, json.loads(data)) for event, data in re.findall(r"^event: (.*)\ndata: (.*)$", turn.text, re.MULTILINE)]
        assert events[-1][0] == "done", events
        [at] = [number for number, (event, _) in enumerate(events) if event == "tool_result"]
        echoed = json.loads("".join(data["content"] for event, data in events[at:] if event == "text_chunk"))
        [told] = echoed["tool_results"]
        assert told["name"] == events[at][1]["name"] == tool and told["output"] == events[at][1]["output"]
        return json.loads(told["output"])


@pytest.fixture(scope="module")
def http(emulator, tmp_path_factory):
    """Datasette, for a person who may chat."""
    folder = tmp_path_factory.mktemp("datasette")
    env = {**os.environ, "DATASETTE_SECRET": secrets.token_hex(16), "DATASETTE_SECRETS_SPRITES_API_KEY": TOKEN,
           "SPRITES_BASE_URL": emulator.url, "LLM_USER_PATH": str(folder), "SPRITES_CLIENT_SIGNALS": "0"}
    program = [sys.executable, "-m", "datasette"]
    made = subprocess.run([*program, "create-token", "alice"], env=env, capture_output=True, text=True, check=True)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*program, "serve", "--uds", folder / "socket", "--internal", folder / "internal.db",
             "--config", HERE / "datasette.yml", "--plugins-dir", HERE / "plugins"],
            env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "socket")), base_url="http://datasette",
                          headers={"Authorization": f"Bearer {made.stdout.strip()}"}, timeout=PATIENCE) as client:
            until_up(client, process, folder / "log")
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE)


def until_up(http, process, log):
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(httpx.TransportError):
            assert http.get("/-/versions.json").status_code == 200
            return
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@pytest.fixture
def agent(http):
    return Agent(http)


def test_the_plugin_is_loaded(http):
    assert "datasette-agent-sprites" in [plugin["name"] for plugin in http.get("/-/plugins.json").json()]


def test_the_life_of_a_sprite(agent):
    made = agent.call("create_sprite", name="from-datasette")
    assert (made["name"], made["status"]) == ("from-datasette", "cold") and made["url"].startswith("https://from-datasette-")
    ran = agent.call("exec_on_sprite", name="from-datasette", working_directory="/tmp",
                     command="echo out; echo err >&2; pwd; exit 3")
    assert ran == {"stdout": "out\n/tmp\n", "stderr": "err\n", "exit_code": 3}
    assert agent.call("get_sprite", name="from-datasette")["status"] == "running"
    listed = agent.call("list_sprites", prefix="from-data")
    assert listed == {"sprites": [{"name": "from-datasette", "status": "running"}], "has_more": False}
    assert agent.call("delete_sprite", name="from-datasette")["ok"] is True
    assert agent.call("list_sprites", prefix="from-data")["sprites"] == []


def test_a_command_uses_the_login_shell_and_has_no_input(agent):
    agent.call("create_sprite", name="shell")
    ran = agent.call("exec_on_sprite", name="shell", command="echo $0 $HOME; cat; seq 20000 | tail -1; printf 'ü\\377'")
    assert ran == {"stdout": "bash /home/sprite\n20000\nü\N{REPLACEMENT CHARACTER}", "stderr": "", "exit_code": 0}


def test_files(agent):
    agent.call("create_sprite", name="files")
    wrote = agent.call("write_sprite_file", name="files", path="/home/sprite/made/here.txt", content="grüße")
    assert (wrote["ok"], wrote["path"]) == (True, "/home/sprite/made/here.txt")
    assert agent.call("exec_on_sprite", name="files", command="cat ~/made/here.txt")["stdout"] == "grüße"
    read = agent.call("read_sprite_file", name="files", path="/home/sprite/made/here.txt")
    assert (read["file_name"], read["text_content"]) == ("here.txt", "grüße")
    assert "file not found (ENOENT)" in agent.call("read_sprite_file", name="files", path="/nowhere")["error"]


def test_refusals(agent, emulator):
    missing = {"error": "Sprite 'nobody' not found"}
    assert agent.call("get_sprite", name="nobody") == missing
    assert agent.call("exec_on_sprite", name="nobody", command="true") == missing
    agent.call("create_sprite", name="twin")
    assert "status 409" in agent.call("create_sprite", name="twin")["error"]
    httpx.post(f"{emulator.url}/_emulator/faults", json={"name": "no_exit_code", "match": {"sprite": "twin"}})
    assert "before receiving command exit status" in agent.call("exec_on_sprite", name="twin", command="echo lost")["error"]
