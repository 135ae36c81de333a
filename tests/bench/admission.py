"""What asking the policy costs the gateway's process (admission_load.c): CPU of one question, beside a PING on the same link.

An admission is the question and its answer, granted or refused. Its settlement is another round trip, after the command.
"""
import contextlib
import json
import subprocess
import threading

import redis

import servers
from figures import median_of, number, ratio, table
from processes import NotMeasured

COUNT = 10_000
IN_FLIGHT = (1, 64)
ROUNDS = 5
# A rate that nobody uses up, and one that is: a refusal is answered with as much, and writes nothing.
LIMITS = ("--rate", "1000000/1s", "--burst", "1000000", "--conc", "1000", "--budget", "1000000000s/day")
KINDS = {"PING": "ping", "admission, refused (429)": "admit", "admission, granted": "grant", "granted, and settled": "pair"}
JUDGED, BAR_US = ("admission, refused (429), 64 at once", "admission, granted, 64 at once"), 10
SWEEP_SECONDS = 0.02


def measure(bench):
    port = bench.base.redis.port
    url = f"redis://127.0.0.1:{port}"
    used_up = servers.token(port, "--rate", "1/1d", "--burst", "1")
    free = servers.token(port, *LIMITS)
    rounds = {f"{name}, {count} at once": [] for count in IN_FLIGHT for name in KINDS}
    for _ in range(ROUNDS):
        for count in IN_FLIGHT:
            for name, mode in KINDS.items():
                token = free if mode in ("grant", "pair") else used_up
                with swept(port, free["kid"]) if mode == "grant" else contextlib.nullcontext():
                    rounds[f"{name}, {count} at once"].append(once(mode, url, token["token"], count))
    return {"rounds": rounds}


@contextlib.contextmanager
def swept(port, kid):
    """Leases that nobody settles would be thousands, which Redis looks through for every question."""
    over = threading.Event()
    keys = f"sg:{{g}}:c:{kid}", "sg:{g}:ac:bench"

    def sweep():
        with redis.Redis(port=port) as client:
            while not over.wait(SWEEP_SECONDS):
                client.delete(*keys)
            client.delete(*keys)
    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        yield
    finally:
        over.set()
        sweeper.join()


def once(mode, url, token, in_flight):
    argv = [servers.BUILD / "bin/admission_load", mode, url, token, servers.PEPPER, in_flight, COUNT]
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise NotMeasured(f"admission: {mode}: {done.stderr.strip() or done.returncode}")
    found = json.loads(done.stdout)
    if found["granted"] != (COUNT if mode in ("grant", "pair") else 0):
        raise NotMeasured(f"admission: {mode}: {found['granted']} of {COUNT} were granted")
    return found


def missed(result):
    """What is above its bar."""
    for name in JUDGED:
        cpu_us = median_of(result["rounds"][name], "cpu_us")
        if cpu_us > BAR_US:
            yield f"{name}: {number(cpu_us)} µs of CPU, the bar is {BAR_US}"


def show(result):
    rounds = result["rounds"]
    rows = []
    for name, each in rounds.items():
        ping = rounds[f"PING, {name.rpartition(', ')[2]}"]
        bar = f"≤ {BAR_US}" if name in JUDGED else ""
        rows.append([name, number(median_of(each, "cpu_us")), bar, ratio(each, ping, "cpu_us"), number(median_of(each, "wall_us"))])
    return table(["one of", "CPU µs", "bar", "of a PING", "wall µs"], rows)
