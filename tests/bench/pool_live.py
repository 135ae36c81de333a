"""Two short shapes of the simulation with a real gateway, Redis and the emulator: the same claims at the same times, open loop, each followed by
the same command on a control socket that is open already. What the simulation says of hits has to hold, if creations, preparations and wakes take
there what they took here."""
import concurrent.futures
import dataclasses
import queue
import re
import time

import exec_added
import servers
from control_socket import launch
from exec_added import COMMAND, Bare, Caller, metrics, run_bare, signed
from figures import bar_table, missed_bars, percentile, table
from pool import hits, simulate, trace
from processes import NotMeasured, Programs

SHAPES = {"live-poisson": "Poisson, 40 a minute", "live-burst": "12 within 1 s, after a rest; 12 more a minute later are counted"}
SEED = 1
EMULATOR = ("--create-delay", "500ms", "--wake-delay", "300ms")
CALLERS = 16
LATE_SECONDS = 0.5          # of a claim that leaves later than it should the answer says little
BUSY_SECONDS = 1            # where a preparation takes longer, what else runs decides what is hot
DESTROY_SECONDS = 0.1       # the gateway does not measure it
BAND = 0.15                 # live and simulated shares of hits: of 27 claims one is 0.04


class Rig:
    """A gateway of its own for a shape, and open control sockets beside it."""

    def __init__(self, programs, bench, shape, limits):
        sprites = servers.emulator(programs, *EMULATOR, "--create-limit", f"{limits['create_limit']}/60s")
        bare = Bare(servers.emulator(programs, *exec_added.EMULATOR), "bare")
        gateway = servers.gateway(programs, f"gateway-{shape}", dataclasses.replace(bench.base, sprites=sprites), pool_hot="auto",
                                  pool_warm="auto", pool_max=limits["max"], pool_running_limit=limits["running_limit"],
                                  pool_creates_per_minute=limits["create_limit"], pool_wait_seconds=30, redis_timeout_ms=5000)
        token = servers.token(bench.base.redis.port, "--rate", "100000/1m", "--burst", "1000", "--conc", "100")["token"]
        self.where = gateway.port, token
        self.admin = gateway.admin
        self.controls = queue.SimpleQueue()
        for _ in range(CALLERS):
            self.controls.put(bare.prepare())
        self.argv = launch(COMMAND)

    def claim(self, due, claim):
        caller = Caller(*self.where)
        late = time.monotonic() - due
        through = caller.run()
        caller.socket.close()
        control = self.controls.get()
        try:
            bare = run_bare(control, self.argv)
        finally:
            self.controls.put(control)
        return {**claim, "late_s": late, "tier": through["tier"], "ms": through["ms"], "bare_ms": bare["ms"]}

    def times(self):
        """What creations, preparations, wakes and deletions took; 0 = there was none."""
        text = metrics(self.admin)

        def mean(kind):
            total, count = (float(re.search(rf"^spritegate_pool_{kind}_seconds_{part}\S* (\S+)$", text, re.MULTILINE)[1]) for part in ("sum", "count"))
            return total / count if count else 0
        return [*map(mean, ("create", "prepare", "wake")), DESTROY_SECONDS]


def measure_shape(bench, shape):
    claims = trace(shape, SEED)
    with Programs(bench.folder) as programs, concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
        rig, running = Rig(programs, bench, shape, claims), []
        began = time.monotonic()
        for claim in claims["claims"]:
            due = began + claim["at_s"]
            time.sleep(max(due - time.monotonic(), 0))
            running.append(pool.submit(rig.claim, due, claim))
        live = [each.result() for each in running]
        times = rig.times()
    late = max(each["late_s"] for each in live)
    if late > LATE_SECONDS:
        raise NotMeasured(f"{shape}: a claim left {late:.2f} s late: too few callers, or the machine is too busy")
    if times[1] > BUSY_SECONDS:
        raise NotMeasured(f"{shape}: a preparation took {times[1]:.2f} s: the machine is too busy")
    return {"live": [each for each in live if each["counts"]], "times": times, "simulated": simulate(shape, "auto", (SEED,), times)}


def measure(bench):
    return {shape: measure_shape(bench, shape) for shape in SHAPES}


def share(live, *tiers):
    return sum(each["tier"] in tiers for each in live) / len(live)


def bars(result):
    """(what, figure, reached)"""
    for shape, found in result.items():
        for tiers in (("hot",), ("hot", "warm")):
            live, simulated = share(found["live"], *tiers), hits(found["simulated"], *tiers)
            yield (f"{shape}: {' or '.join(tiers)}, within {100 * BAND:.0f} points of the simulation",
                   f"{100 * live:.1f} %, simulated {100 * simulated:.1f} %", abs(live - simulated) <= BAND)


def rows_of(shape, found):
    live = found["live"]
    create, prepare, wake, _ = found["times"]
    rows = [[f"{SHAPES[shape]} ({len(live)} claims; creations took {create:.2f} s, preparations {prepare:.2f}, wakes {wake:.2f})"]]
    for tier in ("hot", "warm", "cold"):
        added = [each["ms"] - each["bare_ms"] for each in live if each["tier"] == tier]
        if added:
            rows.append([tier, f"{100 * len(added) / len(live):.1f}", *(signed(percentile(added, percent)) for percent in (50, 95, 99))])
    return rows


def missed(result):
    return missed_bars(bars(result))


def show(result):
    rows = [row for shape, found in result.items() for row in rows_of(shape, found)]
    return table(["added to the bare command, ms, by tier", "% of claims", "p50", "p95", "p99"], rows) + "\n\n" + bar_table(bars(result))
