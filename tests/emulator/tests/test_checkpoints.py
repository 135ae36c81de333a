"""Checkpoints: what is told, what comes back, what a restore ends."""
import asyncio
import datetime
import re

import pytest

from emulator_client import Emulator, until

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


async def listed(client, name):
    return (await client.call("GET", f"/v1/sprites/{name}/checkpoints")).json


async def test_creating_tells_what_was_recorded(emulator):
    async with emulator.client() as client:
        name = await client.create()
        answer = await client.call("POST", f"/v1/sprites/{name}/checkpoint", json={"comment": "clean"})
        assert answer.status == 200
        headers = answer.headers
        assert (headers["Content-Type"], headers["Cache-Control"]) == ("application/x-ndjson", "no-cache")
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Sprite-Version"]
        assert all(RFC3339.fullmatch(line["time"]) for line in answer.lines)
        lines = [(line["type"], line["data"]) for line in answer.lines]
        created = next(text for _, text in lines if text.startswith("  Created: "))
        datetime.datetime.strptime(created, "  Created: %Y-%m-%d %H:%M:%S")
        assert lines == [("info", "Creating checkpoint..."), ("info", "Checkpoint created successfully"),
                         ("info", "\nCheckpoint Details:"), ("info", "  ID: v1"), ("info", created),
                         ("info", "  Path: checkpoints/v1"), ("info", "\nTo restore this checkpoint:"),
                         ("info", "  sprite checkpoint restore v1"),
                         ("info", "  curl -X POST /checkpoints/v1/restore"),
                         ("complete", "Checkpoint v1 created successfully")]


async def test_the_list_is_newest_first(emulator):
    async with emulator.client() as client:
        name = await client.create()
        assert [entry["id"] for entry in await listed(client, name)] == ["Current", "v0"]
        assert [await client.checkpoint(name, comment) for comment in (None, "second")] == ["v1", "v2"]
        answer = await client.call("GET", f"/v1/sprites/{name}/checkpoints?includeAuto=true")
        assert answer.body.endswith(b"]\n") and answer.headers["Content-Type"] == "application/json"
        entries = answer.json
        assert [entry["id"] for entry in entries] == ["Current", "v2", "v1", "v0"]
        assert [list(entry) for entry in entries] == [["id", "create_time", "is_auto"],
                                                      ["id", "create_time", "comment", "is_auto"],
                                                      ["id", "create_time", "is_auto"], ["id", "create_time", "is_auto"]]
        assert {entry["is_auto"] for entry in entries} == {False}
        assert all(RFC3339.fullmatch(entry["create_time"]) for entry in entries)
        one = await client.call("GET", f"/v1/sprites/{name}/checkpoints/v2")
        assert (one.status, one.json) == (200, entries[1])
        history = await client.call("GET", f"/v1/sprites/{name}/checkpoints?history=v2")
        assert history.headers["Content-Type"].startswith("text/plain") and history.text.startswith("v2 ")


async def test_automatic_checkpoints():
    with Emulator("--auto-checkpoints", "2") as emulator:
        async with emulator.client() as client:
            name = await client.create()
            path = f"/v1/sprites/{name}/checkpoints"

            async def automatic():
                entries = (await client.call("GET", path + "?includeAuto=true")).json
                found = [entry["id"] for entry in entries if entry["id"].startswith("auto-")]
                assert found == [entry["id"] for entry in entries if entry["is_auto"]]
                return found

            id = await client.checkpoint(name)
            assert await automatic() == []
            seen = []
            for text in ("one", "two", "three"):
                await client.shell(name, f"echo {text} > f")
                assert (await client.restore(name, id))[-1]["type"] == "complete"
                seen.insert(0, (await automatic())[0])
            assert await automatic() == seen[:2]                    # the oldest is pruned
            for query in ("", "?includeAuto=false"):
                assert [entry["id"] for entry in (await client.call("GET", path + query)).json] == ["Current", "v1", "v0"]
            assert (await client.call("GET", f"{path}/{seen[0]}")).json["is_auto"] is True
            assert (await client.call("GET", f"{path}/{seen[2]}")).status == 404
            assert (await client.restore(name, "v9"))[-1]["type"] == "error"
            assert await automatic() == seen[:2]                    # nothing was replaced
            assert (await client.restore(name, seen[1]))[-1]["type"] == "complete"
            assert (await client.shell(name, "cat f")).out == "two\n"     # restored, though this pruned it
            assert (await client.call("GET", f"{path}/{seen[1]}")).status == 404
            assert (await client.call("DELETE", f"{path}/{seen[0]}")).status == 204
            assert await client.checkpoint(name) == "v2"            # no number was used up
            assert (await client.shell(name, "ls /.sprite/checkpoints")).out.split() == ["v0", "v1", "v2"]


async def test_no_checkpoint_is_automatic_unless_asked_for(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.restore(name, await client.checkpoint(name))
        entries = (await client.call("GET", f"/v1/sprites/{name}/checkpoints?includeAuto=true")).json
        assert [entry["id"] for entry in entries] == ["Current", "v1", "v0"]


async def test_what_is_missing(emulator):
    async with emulator.client() as client:
        name = await client.create()
        for method in ("GET", "DELETE"):
            answer = await client.call(method, f"/v1/sprites/{name}/checkpoints/v9")
            assert (answer.status, answer.headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
            assert answer.text == "Failed to get checkpoint: checkpoint with path checkpoints/v9 not found\n"
        answer = await client.call("POST", f"/v1/sprites/{name}/checkpoints/v9/restore")
        assert answer.status == 200
        first, last = answer.lines
        assert (first["type"], first["data"]) == ("info", "Restoring from checkpoint v9...")
        assert (last["type"], last["error"]) == (
            "error", "Failed to restore checkpoint: checkpoint with path checkpoints/v9 not found")
        for path in ("checkpoints", "checkpoints/v1"):
            answer = await client.call("GET", f"/v1/sprites/nobody/{path}")
            assert (answer.status, answer.json) == (404, {"error": "sprite not found"})


async def test_what_is_missing_as_recorded():
    with Emulator("--missing-500") as emulator:
        async with emulator.client() as client:
            name = await client.create()
            answer = await client.call("GET", f"/v1/sprites/{name}/checkpoints/v9")
            assert (answer.status, answer.text) == (
                500, "Failed to get checkpoint: checkpoint with path checkpoints/v9 not found\n")
            assert (await client.call("DELETE", f"/v1/sprites/{name}/checkpoints/v9")).status == 404


@pytest.mark.parametrize("body", ["{", "[]", "7", '{"comment": 7}'])
async def test_a_bad_body_is_refused(emulator, body):
    async with emulator.client() as client:
        name = await client.create()
        answer = await client.call("POST", f"/v1/sprites/{name}/checkpoint", data=body)
        assert (answer.status, answer.text) == (400, "invalid request body\n")


async def test_deleting(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.checkpoint(name)
        for active in ("Current", "v2"):
            assert (await client.call("DELETE", f"/v1/sprites/{name}/checkpoints/{active}")).status == 409
        answer = await client.call("DELETE", f"/v1/sprites/{name}/checkpoints/v1")
        assert (answer.status, answer.body) == (204, b"")
        assert (await client.restore(name, "v1"))[-1]["type"] == "error"
        assert await client.checkpoint(name) == "v2"        # a number is never used twice


# -- the disk ------------------------------------------------------------------------

async def test_restoring_puts_the_disk_back(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "mkdir -m 700 d; echo one > d/f; ln -s /etc/passwd link; ln d/f hard; mkfifo fifo; "
                                 "truncate -s 100M hole; chmod 000 hole; touch -d 2001-02-03 d/f; echo t > /tmp/t")
        before = (await client.shell(name, "stat -c '%n %f %h %s %Y %U' d d/f link hard fifo hole; cat d/f")).out
        id = await client.checkpoint(name)
        await client.shell(name, "rm -rf d hole; echo other > d; rm link; ln -s /tmp link; touch new .hidden")
        lines = await client.restore(name, id)
        assert [line.get("data") for line in lines] == [
            "Restoring from checkpoint v1...", "Container components started successfully", "Restore from v1 complete"]
        assert [line["type"] for line in lines] == ["info", "info", "complete"]
        after = await client.shell(name, "stat -c '%n %f %h %s %Y %U' d d/f link hard fifo hole; cat d/f")
        assert after.out == before and after.err == ""
        assert (await client.shell(name, "readlink link; ls -A; du -m hole; ls -A /tmp; echo ok >> d/f && echo writable")
                ).out == "/etc/passwd\nd\nfifo\nhard\nhole\nlink\n0\thole\nwritable\n"


async def test_any_checkpoint_may_be_restored_again(emulator):
    async with emulator.client() as client:
        name = await client.create()
        for word in ("one", "two"):
            await client.shell(name, f"echo {word} > f")
            await client.checkpoint(name)
        for id, text in (("v1", "one\n"), ("v2", "two\n"), ("v1", "one\n"), ("v0", "")):
            assert (await client.restore(name, id))[-1]["type"] == "complete"
            assert (await client.shell(name, "cat f; echo changed > f")).out == text
        assert [entry["id"] for entry in await listed(client, name)] == ["Current", "v2", "v1", "v0"]


async def test_the_newest_five_can_be_read_inside(emulator):
    async with emulator.client() as client:
        name = await client.create()
        for number in range(1, 7):
            await client.shell(name, f"echo {number} > f")
            await client.checkpoint(name)
        inside = await client.shell(name, "cd /.sprite/checkpoints; ls -A; cat v2/home/sprite/f; echo x > v2/home/sprite/f")
        assert inside.out == "v2\nv3\nv4\nv5\nv6\n2\n" and "Read-only" in inside.err
        assert (await client.restore(name, "v1"))[-1]["type"] == "complete"      # unseen, not gone
        assert (await client.run(name, "cat", "f")).out == "1\n"


async def test_a_checkpoint_is_of_one_moment_and_ends_nothing(emulator):
    """A writer that always changes two files in turn is never caught more than one step apart."""
    async with emulator.client() as client:
        name = await client.create()
        script = ": > a; head -c 40M /dev/zero > between; : > z; i=0; while :; do i=$((i+1)); echo $i > a; echo $i > z; echo; done"
        async with client.exec(name, "sh", "-c", script) as ws:
            await ws.until_output(b"\n\x01\n")
            ids = [await client.checkpoint(name) for _ in range(3)]
            await ws.until_output(b"\n\x01\n")       # it goes on
        for id in ids:
            texts = (await client.shell(name, f"cd /.sprite/checkpoints/{id}/home/sprite; cat a; echo; cat z")).out.split()
            assert len(texts) < 2 or abs(int(texts[0]) - int(texts[1])) <= 1, texts


# -- what a restore ends -------------------------------------------------------------

async def test_restoring_ends_processes_sessions_and_sockets(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.checkpoint(name)
        await client.leave_sleeping(name)
        async with client.control(name) as idle, client.exec(name, "sh", "-c", "echo ready; exec sleep 61") as ws:
            await ws.until_output(b"ready")
            assert (await client.restore(name, "v1"))[-1]["type"] == "complete"
            for socket in (idle, ws):
                assert (await socket.result()).close is None
        assert (await client.call("GET", f"/v1/sprites/{name}/exec")).json["count"] == 0
        assert (await client.run(name, "pgrep", "-c", "sleep")).out == "0\n"
        assert await client.status(name) == "running"


async def test_requests_wait_while_it_restores():
    with Emulator("--restore-delay", "300ms") as emulator:
        async with emulator.client() as client:
            name = await client.create()
            await client.shell(name, "echo kept > f")
            await client.checkpoint(name)
            await client.shell(name, "echo lost > f")
            restoring = asyncio.ensure_future(client.restore(name, "v1"))
            answers = []
            while not restoring.done():
                try:
                    answers.append((await client.run(name, "cat", "f")).out)
                except OSError:
                    answers.append("refused")
            assert (await restoring)[-1]["type"] == "complete"
            assert (await client.run(name, "cat", "f")).out == "kept\n"
            assert "kept\n" in answers or len(answers) < 3


async def test_the_disk_as_it_is_cannot_be_restored(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.leave_sleeping(name)
        lines = await client.restore(name, "Current")
        assert lines[-1]["error"] == "Failed to restore checkpoint: checkpoint with path checkpoints/Current not found"
        assert (await client.run(name, "pgrep", "-c", "sleep")).out == "1\n"


async def test_restoring_twice_at_once(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.checkpoint(name)
        results = await asyncio.gather(*(client.restore(name, "v1") for _ in range(3)), return_exceptions=True)
        assert any(not isinstance(result, Exception) and result[-1]["type"] == "complete" for result in results)
        assert (await client.run(name, "true")).code == 0


async def test_a_restore_goes_on_without_its_client(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "echo kept > f")
        await client.checkpoint(name)
        await client.shell(name, "echo lost > f")
        async with client.session.post(f"/v1/sprites/{name}/checkpoints/v1/restore") as response:
            response.close()

        async def restored():
            return (await client.run(name, "cat", "f")).out == "kept\n"

        await until(restored)


async def test_destroying_while_it_restores(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "mkdir d; cd d; for i in $(seq 2000); do : > $i; done")
        await client.checkpoint(name)
        restoring = asyncio.ensure_future(client.restore(name, "v1"))
        deleted = asyncio.ensure_future(client.call("DELETE", f"/v1/sprites/{name}"))
        assert (await deleted).status == 204
        await asyncio.gather(restoring, return_exceptions=True)
        assert await client.status(name) is None


async def test_a_restore_wakes_a_paused_sprite(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.checkpoint(name)
        await client.leave_sleeping(name)
        await client.pause(name)
        assert (await client.restore(name, "v1"))[-1]["type"] == "complete"
        assert (await client.run(name, "pgrep", "-c", "sleep")).out == "0\n"


async def test_restore_error(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.checkpoint(name)
        await client.shell(name, "echo new > f")
        await client.leave_sleeping(name)
        await client.fault("restore_error", match={"sprite": name}, count=1)
        answer = await client.call("POST", f"/v1/sprites/{name}/checkpoints/v1/restore")
        assert answer.status == 200
        assert [line["type"] for line in answer.lines] == ["info", "error"]
        assert answer.lines[-1]["error"].startswith("Failed to restore checkpoint: ")
        assert (await client.shell(name, "cat f; pgrep -c sleep")).out == "new\n1\n"     # nothing happened
        assert (await client.restore(name, "v1"))[-1]["type"] == "complete"
        await client.clear_faults()


async def test_restore_nothing(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.checkpoint(name)
        await client.shell(name, "echo new > f; nohup sleep 60 >/dev/null 2>&1 &")
        await client.fault("restore_nothing", match={"sprite": name}, count=1)
        assert (await client.restore(name, "v1"))[-1]["type"] == "complete"
        assert (await client.shell(name, "cat f; pgrep -c sleep")).out == "new\n1\n"
        await client.fault("restore_nothing", match={"sprite": name}, count=1, restart=True)
        assert (await client.restore(name, "v1"))[-1]["type"] == "complete"
        assert (await client.shell(name, "cat f; pgrep -c sleep")).out == "new\n0\n"
        assert (await client.restore(name, "v1"))[-1]["type"] == "complete"
        assert (await client.shell(name, "cat f; pgrep -c sleep")).out == "0\n"
        await client.clear_faults()


async def test_nothing_starts_while_a_checkpoint_is_made(emulator):
    """What would start could swap folders and links under the copy. A gap in the ticks of a process shows when that is."""
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "head -c 300M /dev/zero > big")
        ticking = "while :; do date +%s.%N >> ticks; echo; sleep 0.005; done"
        async with client.exec(name, "bash", "-c", ticking) as ws:
            await ws.until_output(b"\n\x01\n")
            making = asyncio.ensure_future(client.checkpoint(name))
            while not making.done():
                await asyncio.gather(*(client.run(name, "sh", "-c", "date +%s.%N >> starts") for _ in range(2)))
            await ws.until_output(b"\n\x01\n")
            ticks, starts = [sorted(float(line) for line in (await client.run(name, "cat", file)).out.split())
                             for file in ("ticks", "starts")]
        length, begin, end = max((b - a, a, b) for a, b in zip(ticks, ticks[1:]))
        assert length > 0.05
        assert not [moment for moment in starts if begin + 0.02 < moment < end - 0.02]
