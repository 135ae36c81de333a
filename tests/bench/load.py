"""One run of wrk against one server."""
import collections
import json
import pathlib
import subprocess

from figures import counted_percentile
from processes import NotMeasured

SCRIPT = pathlib.Path(__file__).with_name("wrk.lua")

# What a browser sends to Datasette.
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate",
    "Cookie": "ds_csrftoken=ImM0YTdlZjZjNTk0NzQ2MDE4YTI4ZTk5ZjkxOGYzM2Qi.c2lnbmF0dXJl",
}


def wrk(port, path, connections, seconds, cpu, script=SCRIPT, headers=BROWSER):
    """What wrk.lua says, with the latencies as {µs: requests}."""
    words = ["taskset", "-c", str(cpu), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script)]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    result = subprocess.run([*words, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True,
                            timeout=seconds + 20, check=False)
    for line in result.stdout.splitlines():
        if line.startswith("JSON "):
            return with_latencies(json.loads(line[5:]), connections)
    raise NotMeasured(f"wrk failed: {result.stdout[-500:]}{result.stderr[-500:]}")


def with_latencies(run, connections):
    """Those that were measured. To one of n µs wrk has added n - interval, n - 2 * interval and so on, while above the interval (the mean time
    from one request of a connection to its next), for what it would have sent meanwhile: one stall would count many times."""
    counts = collections.Counter(dict(run["latencies"]))
    if run["requests"] >= connections:
        interval = run["wall_us"] // (run["requests"] // connections)
        for us in sorted(counts, reverse=True):
            for added in range(us - interval, interval, -interval):
                counts[added] -= counts[us]
    if min(counts.values(), default=0) < 0 or (counts.total() != run["requests"] and not run["socket_errors"]):
        raise NotMeasured(f"wrk's latencies do not add up to its requests: {counts.total()}, {run['requests']}")
    run["latencies"] = collections.Counter()
    for us, count in counts.items():
        run["latencies"][three_digits(us)] += count
    return run


def three_digits(us):
    unit = 10 ** max(len(str(us)) - 3, 0)
    return us // unit * unit


def loaded(program, *arguments, statuses_ok=True, beside=(), **options):
    """wrk(program.port, …) and what `program` and the programs beside it used meanwhile."""
    watched = (program, *beside)
    before = [each.cpu_seconds() for each in watched]
    run = wrk(program.port, *arguments, **options)
    used = [each.cpu_seconds() - start for each, start in zip(watched, before)]
    if not run["requests"] or run["socket_errors"] or statuses_ok != (run["status_errors"] == 0):
        raise NotMeasured(f"{program.name}: {run}")
    wall = run["wall_us"] / 1e6
    run.update(cpu_us=used[0] * 1e6 / run["requests"], rate=run["requests"] / wall, busy=used[0] / wall,
               p50_ms=counted_percentile(run["latencies"], 50) / 1000, p99_ms=counted_percentile(run["latencies"], 99) / 1000)
    for each, seconds in zip(beside, used[1:]):
        run[f"{each.name}_cpu_us"] = seconds * 1e6 / run["requests"]
    return run
