#!/usr/bin/env python3
"""./tests/run bench: how the gateway compares with its peers, in interleaved runs on this machine.

Prints one table a part and keeps every round in build/bench/results.json. The exit
status is 1 when something could not be measured, or is above a bar that its part judges.
"""
import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time

import admission
import exec_added
import failures
import idle_memory
import pool
import pool_live
import proxied
import record
import refusals
import servers
from processes import NotMeasured, Program, Programs

LIMIT_SECONDS = 1800
PARTS = {
    "proxy": ("Proxied requests", proxied),
    "exec": ("Commands: what the gateway adds", exec_added),
    "record": ("Commands: what the record of their output costs", record),
    "memory": ("Memory of idle keep-alive connections", idle_memory),
    "refusals": ("Refused commands", refusals),
    "failures": ("Tokens that are refused: does the time tell why?", failures),
    "admission": ("Asking the policy", admission),
    "pool": ("The pool in virtual time", pool),
    "pool-live": ("The pool in virtual time and a real one", pool_live),
}
EMULATOR = ("--create-delay", "1500ms", "--wake-delay", "300ms")


@dataclasses.dataclass
class Base:
    """What every gateway of the bench uses."""
    redis: Program
    sprites: Program


@dataclasses.dataclass
class Bench:
    folder: pathlib.Path
    load_cpu: int
    proxy_cpu: int
    rounds: int
    seconds: int
    pairs: int
    memory_rounds: int
    refusal_rounds: int
    cases: str
    beside: pathlib.Path
    base: Base = None


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    add("--rounds", type=int, default=9, help="of the proxied requests (9)")
    add("--seconds", type=int, default=1, help="of each of their runs (1)")
    add("--cases", default="", metavar="TEXT", help="only those proxied requests that have this in their title")
    add("--beside", type=pathlib.Path, metavar="PROGRAM", help="another build of the gateway, for the proxied requests")
    add("--pairs", type=int, default=300, help="of commands (300)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    return options


def make_bench(options):
    folder = servers.TOP / "build/bench"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cpus = sorted(os.sched_getaffinity(0))
    return Bench(folder=folder, load_cpu=cpus[0], proxy_cpu=cpus[min(1, len(cpus) - 1)], rounds=options.rounds,
                 seconds=options.seconds, pairs=options.pairs, memory_rounds=3, refusal_rounds=3, cases=options.cases,
                 beside=options.beside)


def allow_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else min(16384, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def describe(bench):
    def first_line(*command):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return (result.stdout or result.stderr).splitlines()[0]

    return {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "kernel": platform.release(),
            "cpus": os.cpu_count(), "load_average": os.getloadavg(), "preset": servers.PRESET,
            "gateway": first_line(servers.GATEWAY, "version"), "nginx": first_line("nginx", "-v"),
            "haproxy": first_line("haproxy", "-v"), "rounds": bench.rounds, "seconds": bench.seconds, "pairs": bench.pairs}


def run_parts(bench, names, results):
    """The reasons why parts could not be measured, and the bars that were missed."""
    missing, above = [], []
    for name in names:
        title, part = PARTS[name]
        print(f"\n=== {title}\n", flush=True)
        began = time.monotonic()
        try:
            results[name] = part.measure(bench)
            print(part.show(results[name]), flush=True)
            above += [f"{name}: {each}" for each in getattr(part, "missed", lambda result: ())(results[name])]
        except NotMeasured as failure:
            missing.append(f"{name}: {failure}")
            print(f"could not be measured: {failure}", flush=True)
        results.setdefault("part_seconds", {})[name] = time.monotonic() - began
        (bench.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return missing, above


def main():
    options = parse()
    if not servers.GATEWAY.exists():
        sys.exit(f"bench: {servers.GATEWAY} is missing; ./tests/run bench builds it")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGALRM, lambda number, frame: sys.exit(f"bench: not done within {LIMIT_SECONDS} s"))
    signal.alarm(LIMIT_SECONDS)
    allow_files()
    bench = make_bench(options)
    results = {"machine": describe(bench)}
    machine = results["machine"]
    load = " ".join(f"{value:.2f}" for value in machine["load_average"])
    print(f"{machine['gateway']} ({machine['preset']}), {machine['nginx']}, {machine['haproxy']}\n"
          f"{machine['cpus']} CPUs, load average {load}; load and upstream on CPU {bench.load_cpu}, proxies on CPU {bench.proxy_cpu}; "
          f"{bench.rounds} rounds of {bench.seconds} s\n"
          "figures are medians of the rounds but for the least and for percentiles; ratios are medians [quartiles] of the ratios in each round, those "
          "of percentiles are of all rounds together [95 % of the rounds drawn anew]")
    above = []
    try:
        with Programs(bench.folder) as programs:
            bench.base = Base(servers.redis(programs, bench.load_cpu), servers.emulator(programs, *EMULATOR))
            missing, above = run_parts(bench, options.parts or PARTS, results)
    except NotMeasured as failure:
        missing = [str(failure)]
    print(f"\nall rounds: {(bench.folder / 'results.json').relative_to(servers.TOP)}",
          *(f"NOT MEASURED  {each}" for each in missing), *(f"MISSED  {each}" for each in above), sep="\n")
    return 1 if missing or above else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
