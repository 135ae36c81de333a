"""The unmodified datasette-agent-sprites in a real Datasette works against the emulator.

The model follows a script: plugins/scripted.py.
"""
import os
import pathlib
import secrets
import subprocess
import sys

import httpx
import pytest

import conversation
from agent import Agent, until_up
from emulator_client import PATIENCE, TOKEN

HERE = pathlib.Path(__file__).resolve().parent


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


@pytest.fixture
def agent(http):
    return Agent(http)


def test_the_plugin_is_loaded(http):
    assert "datasette-agent-sprites" in [plugin["name"] for plugin in http.get("/-/plugins.json").json()]


def test_a_conversation(agent):
    """test_spritegate_plugin.py has the same one."""
    events, _ = agent.turn(conversation.STEPS[:1])
    assert [event for event, _ in events] == ["tool_call_start", "tool_call_args_chunk", "tool_call", "tool_result", "text_chunk", "done"]
    agent.call("delete_sprite", name="work")
    assert conversation.alike(agent.say(conversation.STEPS)) == conversation.TOLD


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
