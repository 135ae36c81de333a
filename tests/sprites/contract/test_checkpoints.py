"""Making a checkpoint and going back to it: what is restored, what is not left of what ran."""
import asyncio
import time

from service import CLOSED, Refused, Unavailable

MARK = "set -eC; : >\"$1\"; read -r stat </proc/1/stat; set -- ${stat##*) }; printf %s \"${20}\""
MARK_FILE = "/home/sprite/.conformance-used"
READY = 60


async def checkpoint(service, sprite):
    """(id, the stream of its making)"""
    answer = await service.ask("POST", f"/v1/sprites/{sprite}/checkpoint", json={"comment": "clean"})
    assert answer.status == 200, answer
    texts = [line["data"].strip() for line in answer.lines if line["type"] == "info"]
    found = [text.removeprefix("ID: ") for text in texts if text.startswith("ID: ")]
    assert len(found) == 1, answer.lines
    return found[0], answer


async def run_when_ready(service, sprite, *argv):
    """A command as soon as one can be run; right after a restore the Sprite may refuse for a while."""
    end = time.monotonic() + READY
    while True:
        try:
            result = await service.run(sprite, *argv)
            if result.code is not None:
                return result
        except (Refused, Unavailable):
            pass
        assert time.monotonic() < end, "no command can be run"
        await asyncio.sleep(0.1)


async def test_a_restore_brings_back_the_disk_and_ends_what_ran(service, other, figures):
    await service.shell(other, 'rm -f "$1"; echo kept >kept', MARK_FILE)
    id, made = await checkpoint(service, other)
    assert made.lines[-1]["type"] == "complete", made.lines
    figures.time("M4", "making a checkpoint", made.seconds)
    listed = (await service.ask("GET", f"/v1/sprites/{other}/checkpoints")).json
    assert id in [entry["id"] for entry in listed]

    before = await service.shell(other, MARK, MARK_FILE)
    assert before.code == 0 and before.out.isdigit(), before.err
    assert (await service.shell(other, MARK, MARK_FILE)).code != 0, "the mark is there"
    await service.shell(other, "echo changed >kept; echo new >new; echo secret >/dev/shm/conformance; echo secret >/tmp/conformance-left; "
                               "setsid sleep 598 >/dev/null 2>&1 </dev/null &")
    async with service.control(other) as control:
        began = time.monotonic()
        restored = await service.ask("POST", f"/v1/sprites/{other}/checkpoints/{id}/restore", json={}, seconds=120)
        figures.time("M4", "restore, to the end of its stream", restored.seconds)
        assert restored.status == 200
        assert restored.lines[-1]["type"] == "complete", restored.lines
        assert await control.frame() is None, "open sockets end"
    after = await run_when_ready(service, other, "bash", "-c", MARK, "bash", MARK_FILE)
    figures.time("M4", "restore, to the end of a command", time.monotonic() - began)
    assert after.code == 0, "the mark is gone"
    assert after.out.isdigit() and after.out != before.out, "the first process is another one"
    found = await service.shell(other, "cat kept; ls -d new /dev/shm/conformance /tmp/conformance-left 2>/dev/null; pgrep -xf 'sleep 598'; rm -f \"$1\"", MARK_FILE)
    assert found.out.splitlines()[0] == b"kept"
    left = found.out.decode().split("\n")[1:-1]
    figures.note("M4", f"left of memory, /tmp and new files after a restore: {left or 'nothing'}")
    assert not left
    assert (await service.ask("GET", f"/v1/sprites/{other}/policy/network")).json["rules"] == CLOSED["rules"], "the policy stays"


async def test_a_restore_of_what_is_not_there_says_so_in_its_stream(service, other):
    """Whatever its status: a success is a line `complete` and no line `error`."""
    await service.shell(other, "echo untouched >file")
    answer = await service.ask("POST", f"/v1/sprites/{other}/checkpoints/v999/restore", json={})
    kinds = [line["type"] for line in answer.lines] if answer.status == 200 else ["error"]
    assert "error" in kinds
    assert "complete" not in kinds
    assert (await run_when_ready(service, other, "cat", "/home/sprite/file")).out == b"untouched\n"
