"""What keeps a Sprite running, what a pause does, and what wakes it."""
import asyncio
import contextlib
import time

from service import CLOSED, Unavailable, until


async def test_idle_sprites(service, sprite, other, fresh, timing, figures):
    """Three at once: one left alone, one with an open control socket, one that runs a command now and then, as the gateway's hot ones do."""
    watched = fresh[0]
    result = await service.shell(other, "setsid bash -c 'while :; do echo >>/tmp/beats; sleep 0.1; done' >/dev/null 2>&1 </dev/null &")
    assert result.code == 0
    async with service.control(watched) as held, service.control(sprite) as kept:
        assert (await held.run("true")).code == 0
        enough = asyncio.Event()
        beating = asyncio.ensure_future(beat(kept, timing.keepalive, enough))
        try:
            began = time.monotonic()
            paused = await until(lambda: sleeps(service, other), timing.patience, 0.5)
            window = time.monotonic() - began
            figures.note("M2", f"left alone it paused after {window:.1f} s" if paused else f"left alone it had not paused after {window:.0f} s")
            assert paused
            figures.note("M2", f"its status then: {await service.status(other)}")
            figures.note("M1", await watch(service, watched, held, window * 1.5))
            assert await service.status(sprite) == "running", "a command every KEEPALIVE keeps a Sprite running"
        finally:
            enough.set()
            await beating
        assert (await kept.run("true")).code == 0, "on the same socket"
    await wake(service, other, timing, figures)


async def beat(control, seconds, enough):
    while not enough.is_set():
        assert (await control.run("true", seconds=5)).code == 0, "its socket was lost between two commands"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(enough.wait(), seconds)


async def sleeps(service, name):
    return await service.status(name) != "running"


async def watch(service, name, control, seconds):
    """What became of an idle control socket, in words. It may go either way: the gateway expects both."""
    paused = await until(lambda: sleeps(service, name), seconds, 0.5)
    frame = None
    with contextlib.suppress(Unavailable):
        frame = await control.run("true", seconds=10)
    works = frame is not None and frame.code == 0
    return (f"{'paused within' if paused else 'still running after'} {seconds:.0f} s with an idle control socket, "
            f"which then {'worked' if works else 'was lost'}")


async def wake(service, name, timing, figures):
    """A dial wakes it, with what it had: its processes, its policy."""
    if timing.asleep:
        await asyncio.sleep(timing.asleep)
    status = await service.status(name)
    began = time.monotonic()
    async with service.control(name) as control:
        dialled = time.monotonic() - began
        first = await control.run("bash", "-c", "wc -l </tmp/beats")
        ready = time.monotonic() - began
    figures.time("M2", f"dial of a {status} one ({timing.asleep:.0f} s after it paused)", dialled)
    figures.time("M2", "to the end of the first command", ready)
    assert await service.status(name) == "running"
    assert (await service.ask("GET", f"/v1/sprites/{name}/policy/network")).json["rules"] == CLOSED["rules"], "the policy stays"
    if status == "warm":
        second = await service.shell(name, "sleep 0.5; wc -l </tmp/beats; pkill -f tmp/beats")
        assert int(second.out) > int(first.out), "processes go on after a wake from warm"
