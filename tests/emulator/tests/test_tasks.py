"""The API inside a Sprite: tasks that keep it awake, and what else the socket serves."""
import asyncio
import json

import pytest

from emulator_client import Emulator

PAUSE = 1.0


@pytest.fixture(scope="module")
def sleepy():
    with Emulator("--idle-pause", f"{PAUSE}s") as emulator:
        yield emulator


async def ask(client, name, method, path, body=None):
    """(status, answer) of a request on the socket inside."""
    data = [] if body is None else ["-d", json.dumps(body)]
    result = await client.run(name, "sprite-env", "curl", "-X", method, *data, "-w", "\n%{http_code}", path)
    assert result.code == 0, result.err
    text, _, status = result.out.rpartition("\n")
    return int(status), json.loads(text) if text.strip() else None


async def test_the_calls(emulator):
    async with emulator.client() as client:
        name = await client.create()
        assert await ask(client, name, "GET", "/v1/tasks") == (200, {"tasks": []})
        status, task = await ask(client, name, "POST", "/v1/tasks", {"name": "work", "expire": "5m"})
        assert status == 201 and list(task) == ["name", "started_at", "expires_at"]
        assert (await ask(client, name, "POST", "/v1/tasks", {"name": "work", "expire": 5}))[0] == 409
        assert await ask(client, name, "GET", "/v1/tasks/work") == (200, task)
        status, longer = await ask(client, name, "PUT", "/v1/tasks/work", {"expire": 3600})
        assert status == 200 and longer["started_at"] == task["started_at"] and longer["expires_at"] > task["expires_at"]
        status, other = await ask(client, name, "PUT", "/v1/tasks", {"name": "other", "expire": "1h"})
        assert (status, await ask(client, name, "GET", "/v1/tasks")) == (200, (200, {"tasks": [longer, other]}))
        assert await ask(client, name, "DELETE", "/v1/tasks/work") == (204, None)
        for method in ("GET", "DELETE"):
            assert (await ask(client, name, method, "/v1/tasks/work"))[0] == 404


@pytest.mark.parametrize("body", [None, [], {}, {"name": "x"}, {"expire": 5}, {"name": "", "expire": 5}, {"name": 7, "expire": 5},
                                  {"name": "x", "expire": 0}, {"name": "x", "expire": -1}, {"name": "x", "expire": 3601},
                                  {"name": "x", "expire": "61m"}, {"name": "x", "expire": "soon"}, {"name": "x", "expire": True},
                                  {"name": "x", "expire": None}, {"name": "x", "expire": "0s"}])
async def test_what_is_no_task(emulator, body):
    async with emulator.client() as client:
        name = await client.create()
        assert (await ask(client, name, "POST", "/v1/tasks", body))[0] == 400
        assert await ask(client, name, "GET", "/v1/tasks") == (200, {"tasks": []})


async def test_a_task_keeps_its_sprite_awake_until_it_is_over(sleepy):
    async with sleepy.client() as client:
        name, other = await client.create(), await client.create()
        await ask(client, name, "POST", "/v1/tasks", {"name": "work", "expire": "3s"})
        assert (await client.run(other, "true")).code == 0
        await client.until_status(other, "warm")
        assert await client.status(name) == "running"
        await client.until_status(name, "warm")         # by its expiry


async def test_a_task_that_is_deleted_lets_its_sprite_sleep(sleepy):
    async with sleepy.client() as client:
        name = await client.create()
        await ask(client, name, "PUT", "/v1/tasks/work", {"expire": "1h"})
        await asyncio.sleep(2 * PAUSE)
        assert await client.status(name) == "running"
        await ask(client, name, "DELETE", "/v1/tasks/work")
        await client.until_status(name, "warm")


async def test_a_machine_that_dies_loses_its_tasks(sleepy):
    async with sleepy.client() as client:
        name = await client.create()
        await ask(client, name, "PUT", "/v1/tasks/work", {"expire": "1h"})
        await client.fault("kill_vm", match={"sprite": name}, count=1, delay_ms=0)
        await client.run(name, "sleep", "600")
        await client.until_status(name, "cold")
        await client.clear_faults()
        assert await ask(client, name, "GET", "/v1/tasks") == (200, {"tasks": []})
        await client.until_status(name, "warm")


async def test_each_sprite_has_its_own(emulator):
    async with emulator.client() as client:
        one, two = await client.create(), await client.create()
        await ask(client, one, "POST", "/v1/tasks", {"name": "work", "expire": 60})
        assert await ask(client, two, "GET", "/v1/tasks") == (200, {"tasks": []})
        answer = await client.call("GET", f"/v1/sprites/{one}/tasks")
        assert answer.status == 404                     # only inside


async def test_checkpoints_from_inside(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "echo kept > f")
        result = await client.run(name, "sprite-env", "curl", "-X", "POST", "-d", "{}", "/v1/checkpoint")
        assert "Checkpoint v1 created successfully" in result.out
        status, entries = await ask(client, name, "GET", "/v1/checkpoints")
        assert (status, [entry["id"] for entry in entries]) == (200, ["Current", "v1", "v0"])
        await client.shell(name, "echo lost > f")
        result = await client.run(name, "sprite-env", "curl", "-X", "POST", "/v1/checkpoints/v1/restore")
        assert (result.code, result.close) == (None, None)      # it ended itself
        assert (await client.run(name, "cat", "f")).out == "kept\n"


async def test_the_socket_cannot_be_replaced_or_used_to_harm(emulator):
    async with emulator.client() as client:
        name = await client.create()
        assert (await client.shell(name, "rm -f /.sprite/api.sock")).code != 0
        big = "head -c 3000000 /dev/zero | tr '\\0' ' ' | sprite-env curl -X POST --data-binary @- -w '%{http_code}' /v1/tasks"
        assert "413" in (await client.shell(name, big)).out
        for path in ("/v1/sprites", "/_emulator/state", "/v1/exec", "/v1/tasks/../../_emulator/state"):
            asked = await client.run(name, "sprite-env", "curl", "--path-as-is", "-w", "%{http_code}", f"http://sprite{path}")
            assert asked.out.endswith("404"), path
        await client.shell(name, "for i in $(seq 50); do (exec 3<>/dev/null; curl -s --unix-socket /.sprite/api.sock http://x/"
                                 "$(head -c 20000 /dev/zero | tr '\\0' x) >/dev/null) & done; wait")
        assert await ask(client, name, "GET", "/v1/tasks") == (200, {"tasks": []})
