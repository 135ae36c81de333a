"""Services: what their routes answer, when they start and start again, and that they keep nobody awake."""
import asyncio

import pytest

from emulator_client import Emulator, until


class Services:
    def __init__(self, client, name):
        self.client, self.name = client, name

    async def call(self, method, path="", **more):
        return await self.client.call(method, f"/v1/sprites/{self.name}/services{path}", **more)

    async def put(self, name, line, duration="0s", **more):
        answer = await self.call("PUT", f"/{name}?duration={duration}", json={"cmd": "sh", "args": ["-c", line], **more})
        assert answer.status == 200, answer.text
        return answer.lines

    async def state(self, name):
        return (await self.call("GET", f"/{name}")).json["state"]

    async def until(self, name, status):
        async def there():
            return (await self.state(name))["status"] == status

        await until(there)


def kinds(lines):
    return [line["type"] for line in lines]


async def test_a_service_from_beginning_to_end(emulator):
    async with emulator.client() as client:
        services = Services(client, await client.create())
        assert (await services.call("GET")).json == []
        lines = await services.put("web", "echo hello; echo oops >&2; exec sleep 60", "500ms", env={"A": "b"}, http_port=8080)
        assert kinds(lines)[0] == "started" and kinds(lines)[-1] == "complete"
        assert {(line["type"], line["data"]) for line in lines if line["type"].startswith("std")} == {
            ("stdout", "hello\n"), ("stderr", "oops\n")}
        assert all(line["timestamp"] > 1_600_000_000_000 for line in lines)
        (service,) = (await services.call("GET")).json
        state = service.pop("state")
        assert service == {"name": "web", "cmd": "sh", "args": ["-c", "echo hello; echo oops >&2; exec sleep 60"], "needs": [],
                           "env": {"A": "b"}, "http_port": 8080}
        assert (state["name"], state["status"], state["restart_count"]) == ("web", "running", 0)
        pid = state["pid"]
        assert (await client.run(services.name, "cat", f"/proc/{pid}/comm")).out == "sleep\n"
        assert (await client.call("GET", f"/v1/sprites/{services.name}/exec")).json["count"] == 0     # no session
        assert (await services.call("POST", "/web/start")).status == 409
        logs = (await services.call("GET", "/web/logs?lines=1")).lines
        assert len(logs) == 2 and logs[0]["type"].startswith("std")
        stopped = await services.call("POST", "/web/stop?timeout=5s")
        assert stopped.status == 200 and kinds(stopped.lines) == ["stopping", "exit", "stopped", "complete"]
        assert stopped.lines[1]["exit_code"] == 143
        assert (await services.state("web"))["status"] == "stopped"
        assert (await services.call("POST", "/web/stop")).status == 409
        assert kinds((await services.call("POST", "/web/start?duration=1.5s")).lines)[0] == "started"
        again = await services.call("POST", "/web/restart?duration=0s")
        assert kinds(again.lines) == ["stopping", "exit", "stopped", "complete"] or "started" in kinds(again.lines)
        await services.until("web", "running")
        answer = await services.call("DELETE", "/web")
        assert (answer.status, answer.body) == (204, b"")
        assert (await services.call("GET")).json == []
        await client.until_none(services.name, "sleep")


async def test_one_that_fails_starts_again(emulator):
    async with emulator.client() as client:
        services = Services(client, await client.create())
        await services.put("flaky", "echo x >> ~/starts; exit 3")
        await services.until("flaky", "failed")
        state = await services.state("flaky")
        assert state["error"] == "exit status 3" and state["next_restart_at"].endswith("Z")

        async def again():
            return (await client.run(services.name, "cat", "/home/sprite/starts")).out.startswith("x\nx\n")

        await until(again)
        assert (await services.state("flaky"))["restart_count"] >= 1
        lines = await services.put("well", "exit 0", "5s")
        assert kinds(lines) == ["started", "exit", "complete"] and lines[1]["exit_code"] == 0      # not held for 5 s
        assert (await services.state("well"))["status"] == "stopped"
        await services.put("missing", "true", cmd="/no/such/program")
        await services.until("missing", "failed")
        assert "no such file" in (await services.state("missing"))["error"].lower()


async def test_one_that_ignores_term_is_killed(emulator):
    async with emulator.client() as client:
        services = Services(client, await client.create())
        await services.put("stubborn", "trap '' TERM; echo ready; while :; do sleep 0.1; done", "300ms")
        answer = await services.call("POST", "/stubborn/stop?timeout=200ms")
        assert kinds(answer.lines)[-2:] == ["stopped", "complete"]
        await client.until_none(services.name, "sh")


async def test_signals(emulator):
    async with emulator.client() as client:
        services = Services(client, await client.create())
        await services.put("s", "trap 'echo usr1 >> ~/got' USR1; echo ready; while :; do sleep 0.05; done", "300ms")
        for body, status in (({"name": "s", "signal": "USR1"}, 204), ({"name": "s", "signal": "BANG"}, 400),
                             ({"name": "nobody", "signal": "TERM"}, 404), ({"name": [], "signal": "TERM"}, 404), ([], 400)):
            assert (await services.call("POST", "/signal", json=body)).status == status, body

        async def got():
            return (await client.run(services.name, "cat", "/home/sprite/got")).out == "usr1\n"

        await until(got)
        await services.call("POST", "/s/stop")
        assert (await services.call("POST", "/signal", json={"name": "s", "signal": "TERM"})).status == 409


async def test_needs_and_ports(emulator):
    async with emulator.client() as client:
        services = Services(client, await client.create())
        await services.put("db", "sleep 60", http_port=5000)
        await services.put("web", "sleep 60", needs=["db"])
        for body, status in (({"cmd": "x", "http_port": 6000}, 409), ({"cmd": "x", "needs": ["nobody"]}, 400),
                             ({"cmd": "x", "http_port": 70000}, 400), ({"args": []}, 400), ({"cmd": 7}, 400),
                             ({"cmd": "x", "args": "y"}, 400), ({"cmd": "x", "env": []}, 400), ({"cmd": "a\0"}, 400)):
            assert (await services.call("PUT", "/other", json=body)).status == status, body
        assert (await services.call("PUT", "/db", json={"cmd": "x", "needs": ["web"]})).status == 400     # a circle
        assert (await services.call("PUT", "/db", json={"cmd": "sleep", "args": ["61"], "http_port": 5001})).status == 200
        assert (await services.call("DELETE", "/db")).status == 409
        assert (await services.call("PUT", "/..%2F..", json={"cmd": "x"})).status in (400, 404)
        assert (await services.call("PUT", "/x?duration=5", json={"cmd": "x"})).status == 400
        for method, path in (("GET", "/no"), ("DELETE", "/no"), ("POST", "/no/start"), ("POST", "/no/stop"),
                             ("POST", "/no/restart"), ("GET", "/no/logs")):
            assert (await services.call(method, path)).status == 404


async def test_services_start_again_with_the_machine():
    with Emulator("--cold-after", "100ms") as emulator:
        async with emulator.client() as client:
            services = Services(client, await client.create())
            name = services.name
            await services.put("db", "echo db >> ~/order; exec sleep 60", "200ms")
            await services.put("web", "echo web >> ~/order; exec sleep 61", "200ms", needs=["db"])
            await services.put("off", "echo off >> ~/order; exec sleep 62", "200ms")
            await services.call("POST", "/off/stop")
            await client.checkpoint(name)
            await client.shell(name, "rm order")
            await client.pause(name)
            await client.until_status(name, "cold")

            async def both():
                return sorted((await client.run(name, "cat", "order")).out.split()) == ["db", "web"]

            await until(both)                                   # by a cold start
            await client.shell(name, "rm order")
            assert (await client.restore(name, "v1"))[-1]["type"] == "complete"

            async def four():
                return sorted((await client.run(name, "cat", "order")).out.split()) == ["db", "db", "off", "web", "web"]

            await until(four)                                   # by a restore
            assert (await services.state("off"))["status"] == "stopped"


async def test_a_service_keeps_nobody_awake_and_rests_with_its_machine():
    with Emulator("--idle-pause", "500ms") as emulator:
        async with emulator.client() as client:
            services = Services(client, await client.create())
            await services.put("busy", "while :; do echo x; sleep 0.02; done")
            await services.put("flaky", "echo x >> ~/starts; exit 1")
            await services.until("flaky", "failed")
            await client.until_status(services.name, "warm")
            await asyncio.sleep(2)
            assert await client.status(services.name) == "warm"
            assert (await services.state("busy"))["status"] == "running"


async def test_a_flood_of_output_harms_nobody(emulator):
    async with emulator.client() as client:
        services = Services(client, await client.create())
        await services.put("loud", "yes " + "y" * 70000)
        assert (await client.run(services.name, "echo", "well")).out == "well\n"
        lines = (await services.call("GET", "/loud/logs?duration=200ms")).lines
        assert lines[-1]["type"] == "complete" and max(len(line.get("data", "")) for line in lines) <= 16384
        assert (await services.call("DELETE", "/loud")).status == 204


@pytest.mark.parametrize("method, path", [("PUT", "/s?duration=30s"), ("GET", "/s/logs?duration=30s")])
async def test_a_client_may_leave(emulator, method, path):
    async with emulator.client() as client:
        services = Services(client, await client.create())
        await services.put("s", "while :; do echo x; sleep 0.05; done")
        async with client.session.request(method, f"/v1/sprites/{services.name}/services{path}",
                                          json={"cmd": "sh", "args": ["-c", "while :; do echo y; sleep 0.05; done"]}) as response:
            await response.content.readline()
            response.close()
        await services.until("s", "running")
