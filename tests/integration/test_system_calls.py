"""What a proxied request asks of the kernel, counted by strace: a machine that is busy changes times, but not this."""
import collections
import contextlib
import os
import re
import signal
import time

import pytest

import rig as rigs
from rig import until
from wire import Wire

CALL = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)
BODY = b"x" * 2048
REQUESTS = 160

# On one connection; on more of them waits and writes are for several requests at once. A whole call more is too many.
MOST = {"waits": 3, "log": 1, "rest": 4}     # the rest: read the request, send it, read the answer, send it
SLACK = 0.5
# Of what timers and the link to Redis ask for, whatever is requested, so much more than when nothing is.
IDLE_MORE = 2
IDLE_S = 3


def kind(name):
    return "waits" if name.startswith("epoll_") and name != "epoll_ctl" else "log" if name == "write" else "rest"


class Traced:
    """A gateway with one worker, and what that one asks of the kernel."""

    def __init__(self, rig, folder):
        upstream = rig.upstream()
        upstream.on("/page")(lambda exchange: exchange.reply(body=BODY))
        self.trace = folder / "trace"
        # The tracer is the gateway's grandchild, which ends when it is told to.
        self.gateway = rig.gateway(datasette_url=upstream.url, workers=1, token=False, access_log=folder / "access",
                                   argv=["strace", "-D", "-f", "-I", "2", "-s", "0", "-o", self.trace, rigs.BINARY, "serve"])

    def tracer(self):
        return int(self.gateway.status("TracerPid"))

    def leave(self):
        tracer = self.tracer()
        if not tracer:      # 0 would be all of our own group
            return
        os.kill(tracer, signal.SIGINT)
        until(lambda: self.tracer() == 0, "it is not traced any more")

    def lines(self):
        return CALL.findall(self.trace.read_text(encoding="utf-8", errors="replace"))

    def counted(self, work):
        """Calls of each thread, by name, and the seconds they took."""
        before, began = len(self.lines()), time.monotonic()
        work()
        new, seconds = self.lines()[before:], time.monotonic() - began
        calls = collections.defaultdict(collections.Counter)
        for thread, name in new:
            calls[thread][name] += 1
        return calls, seconds


@pytest.fixture(scope="module")
def traced(shared_rig, tmp_path_factory):
    traced = Traced(shared_rig, tmp_path_factory.mktemp("strace"))
    yield traced
    traced.leave()      # a sanitizer that looks for leaks at the end is a tracer itself


def ask_all(wires, times):
    for _ in range(times):
        for wire in wires:
            wire.ask("GET", "/page")
        for wire in wires:
            assert wire.answer().body == BODY


def kinds(calls):
    found = collections.Counter()
    for name, count in calls.items():
        found[kind(name)] += count
    return found


@pytest.mark.parametrize("connections", [1, 16])
def test_of_one_request(traced, connections):
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(traced.gateway.port)) for _ in range(connections)]
        # Opening a connection to Datasette is not what is counted. After a pause of 4 s there is none left.
        for _ in range(20):
            threads, seconds = traced.counted(lambda: ask_all(wires, REQUESTS // connections))
            worker, calls = max(threads.items(), key=lambda thread: thread[1]["recvfrom"])
            if not calls["connect"]:
                break
        else:
            pytest.fail(f"connections to Datasette are opened again and again: {calls}")
        threads, idle_seconds = traced.counted(lambda: time.sleep(IDLE_S))
    found, idle = kinds(calls), kinds(threads[worker])
    assert found["rest"] >= (MOST["rest"] - SLACK) * REQUESTS, f"not all was counted: {calls}"
    for what, most in MOST.items():
        by_time = IDLE_MORE * idle[what] * seconds / idle_seconds
        assert found[what] <= (most + SLACK) * REQUESTS + by_time, (
            f"{what} of {REQUESTS} requests in {seconds:.1f} s: {calls}; of none in {idle_seconds:.1f} s: {threads[worker]}")
