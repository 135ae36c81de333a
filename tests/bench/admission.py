"""What asking the policy costs the gateway's process (admission_load.c): CPU of one question, beside a PING on the same link."""
import json
import subprocess

import servers
from figures import median_of, number, ratio, table
from processes import NotMeasured

COUNT = 10_000
IN_FLIGHT = (1, 64)
ROUNDS = 5
# A rate that nobody uses up, and one that is: a refusal is answered with as much, and writes nothing.
LIMITS = ("--rate", "1000000/1s", "--burst", "1000000", "--conc", "1000", "--budget", "1000000000s/day")
KINDS = {"PING": "ping", "refused (429)": "admit", "granted and settled": "pair"}


def measure(bench):
    url = f"redis://127.0.0.1:{bench.base.redis.port}"
    used_up = servers.token(bench.base.redis.port, "--rate", "1/1d", "--burst", "1")["token"]
    free = servers.token(bench.base.redis.port, *LIMITS)["token"]
    rounds = {f"{name}, {count} at once": [] for count in IN_FLIGHT for name in KINDS}
    for _ in range(ROUNDS):
        for count in IN_FLIGHT:
            for name, mode in KINDS.items():
                rounds[f"{name}, {count} at once"].append(once(mode, url, free if mode == "pair" else used_up, count))
    return {"rounds": rounds}


def once(mode, url, token, in_flight):
    argv = [servers.BUILD / "bin/admission_load", mode, url, token, servers.PEPPER, in_flight, COUNT]
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise NotMeasured(f"admission: {mode}: {done.stderr.strip() or done.returncode}")
    found = json.loads(done.stdout)
    if found["granted"] != (COUNT if mode == "pair" else 0):
        raise NotMeasured(f"admission: {mode}: {found['granted']} of {COUNT} were granted")
    return found


def show(result):
    rounds = result["rounds"]
    rows = []
    for name, each in rounds.items():
        ping = rounds[f"PING, {name.rpartition(', ')[2]}"]
        rows.append([name, number(median_of(each, "cpu_us")), ratio(each, ping, "cpu_us"), number(median_of(each, "wall_us"))])
    return table(["one question", "CPU µs", "of a PING", "wall µs"], rows)
