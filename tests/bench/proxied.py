"""Proxied requests: the gateway, nginx and HAProxy before the same upstream, one after another in every round.

Every proxy writes an access log to a file and keeps its counters: the gateway its metrics, nginx those of stub_status, HAProxy those of
its statistics. nginx collects lines as the gateway does; HAProxy has no such setting. Varnish keeps its log in shared memory and nobody
writes it out. "nginx-unset" has the buffers that it has by itself; the other nginx has five times as many bytes of them.

Each run comes right after one like it that is forgotten, so that every proxy has its connections to the upstream open. Latencies are those
of all rounds together: the longest pause of a round is the machine's, and which proxy it meets is chance.
"""
import dataclasses
import http.client
import os

import servers
from figures import bar_table, counted_percentile, median_of, missed_bars, number, pooled, pooled_ratios, ratios, spread, table, with_range
from load import BROWSER, loaded, wrk
from processes import NotMeasured, Programs

MEDIANS = {"cpu_us": "CPU µs/request", "rate": "requests/s"}           # of the rounds
PERCENTILES = {"p50 ms": 50, "p90 ms": 90, "p99 ms": 99, "p99.9 ms": 99.9}   # of the requests of all rounds
TITLES = (*MEDIANS.values(), *PERCENTILES)
ALL = ("gateway", "nginx", "haproxy")
WARM_SECONDS = 1
UPLOAD = 1024 * 1024
UPLOAD_SCRIPT = "wrk.method = 'POST'\nwrk.body = string.rep('x', {})\ndofile('{}')\n"


@dataclasses.dataclass
class Case:
    title: str
    path: str
    connections: int
    proxies: tuple = ALL
    keep: bool = True
    upload: bool = False
    anonymous: bool = False


CASES = (
    Case("2 KB, 64 connections", "/2k", 64),
    Case("2 KB, 1 connection", "/2k", 1),
    Case("2 KB, 16 connections", "/2k", 16),
    Case("2 KB, 256 connections", "/2k", 256),
    Case("2 KB, 64 connections, without access logs", "/2k", 64, tuple(f"{name}-unlogged" for name in ALL)),
    Case("2 KB chunked, 64 connections", "/chunked", 64),
    Case("2 KB after 2 ms, 64 connections", "/slow", 64),
    Case("64 KB, 64 connections", "/64k", 64),
    Case("5 MiB, 4 connections", "/5m", 4, (*ALL, "nginx-unset")),
    Case("1 MiB up, 2 KB down, 4 connections", "/2k", 4, upload=True),
    Case("2 KB from a cache, 64 connections", "/2k", 64, ("gateway-cache", "nginx-cache", "varnish"), anonymous=True),
    Case("2 KB, 16 connections, each request on a new one", "/2k", 16, keep=False),
)

# Case, figure, ours, theirs, most.
BARS = (("2 KB, 64 connections", "CPU µs/request", "gateway", "nginx", 1.15),
        ("2 KB, 64 connections", "CPU µs/request", "gateway", "haproxy", 0.95),
        ("2 KB, 64 connections", "p99 ms", "gateway", "nginx", 1),
        ("5 MiB, 4 connections", "CPU µs/request", "gateway", "nginx-unset", 0.8),
        ("2 KB from a cache, 64 connections", "CPU µs/request", "gateway-cache", "nginx-cache", 0.75))


def measure(bench):
    cases = [case for case in CASES if bench.cases in case.title]
    if not cases:
        raise NotMeasured(f"no case has {bench.cases!r} in its title")
    if bench.beside:
        cases = [dataclasses.replace(case, proxies=(*case.proxies, "beside")) for case in cases]
    with Programs(bench.folder) as programs:
        upstream = servers.upstream(programs, bench.load_cpu)
        proxies = start_proxies(bench, programs, upstream.port, {name for case in cases for name in case.proxies})
        check_answers(upstream, proxies.values(), cases)
        alone = {case.path: wrk(upstream.port, case.path, 64, 1, bench.load_cpu) for case in cases}
        rounds = [{name: [] for name in case.proxies} for case in cases]
        for number_of_round in range(bench.rounds):
            one_round(bench, proxies, cases, rounds, number_of_round)
    return {"cases": [dataclasses.asdict(case) for case in cases], "figures": [figures_of(each) for each in rounds],
            "ratios": [compared(case, each) for case, each in zip(cases, rounds)], "rounds": rounds, "upstream_alone": alone}


def start_proxies(bench, programs, port, wanted):
    """One that is to be compared with the others is a line here and its name in the cases."""
    cpu, folder = bench.proxy_cpu, bench.folder

    def nginx(name, **options):
        return servers.nginx(programs, name, port, cpu, f"{folder / name}.access combined buffer=64k flush=1s", **options)

    common = {"workers": 1, "pool_hot": 0, "cpu": cpu}
    found = {
        "gateway": lambda name: servers.gateway(programs, name, bench.base, port, access_log=folder / f"{name}.access", **common),
        "beside": lambda name: servers.gateway(programs, name, bench.base, port, access_log=folder / f"{name}.access",
                                               binary=bench.beside, **common),
        "nginx": nginx,
        "nginx-unset": lambda name: nginx(name, buffers=""),
        "haproxy": lambda name: servers.haproxy(programs, name, port, cpu, logs=True),
        "gateway-cache": lambda name: servers.gateway(programs, name, bench.base, port, access_log=folder / f"{name}.access",
                                                      cache_bytes="64MiB", **common),
        "nginx-cache": lambda name: nginx(name, cache=True),
        "varnish": lambda name: servers.varnish(programs, name, port, cpu),
        "gateway-unlogged": lambda name: servers.gateway(programs, name, bench.base, port, **common),
        "nginx-unlogged": lambda name: servers.nginx(programs, name, port, cpu),
        "haproxy-unlogged": lambda name: servers.haproxy(programs, name, port, cpu)}
    return {name: start(name) for name, start in found.items() if name in wanted}


def check_answers(upstream, proxies, cases):
    """Nothing is measured that does not do the work. Whether a short answer leaves chunked is the proxy's choice."""
    for path, upload in {(case.path, case.upload) for case in cases}:
        wanted = answer(upstream, path, upload)
        for proxy in proxies:
            if answer(proxy, path, upload) != wanted:
                raise NotMeasured(f"{proxy.name} changes the answer to {path}: status {answer(proxy, path, upload)[0]}")


def answer(program, path, upload):
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=5)
    connection.request("POST" if upload else "GET", path, b"x" * UPLOAD if upload else None)
    response = connection.getresponse()
    result = response.status, response.getheader("content-type"), response.read()
    connection.close()
    return result


def one_round(bench, proxies, cases, rounds, index):
    """Every case by every proxy, each time another one first."""
    for case, kept in zip(cases, rounds):
        turn = index % len(case.proxies)
        for name in case.proxies[turn:] + case.proxies[:turn]:
            one_run(bench, proxies[name], case, WARM_SECONDS)
            kept[name].append(one_run(bench, proxies[name], case, bench.seconds))


def one_run(bench, proxy, case, seconds):
    headers = BROWSER if case.keep else {**BROWSER, "Connection": "close"}
    if case.anonymous:
        headers = {name: value for name, value in headers.items() if name != "Cookie"}
    options = {"cpu": bench.load_cpu, "headers": headers}
    if case.upload:
        options["script"] = bench.folder / "upload.lua"
        options["script"].write_text(UPLOAD_SCRIPT.format(UPLOAD, servers.TOP / "tests/bench/wrk.lua"), encoding="utf-8")
    run = loaded(proxy, case.path, case.connections, seconds, **options)
    for log in bench.folder.glob("*.access"):
        os.truncate(log, 0)     # a minute of these would be a gigabyte
    return run


def figures_of(rounds):
    found = {name: {title: median_of(each, figure) for figure, title in MEDIANS.items()} for name, each in rounds.items()}
    for name, each in rounds.items():
        together = pooled(each)
        found[name].update((title, counted_percentile(together, percent) / 1000) for title, percent in PERCENTILES.items())
        found[name]["least CPU µs"] = least_cpu(each)
    return found


def compared(case, rounds):
    """The first proxy with every other one: (ratio, low, high) of each figure."""
    ours, *others = case.proxies
    found = {}
    for name in others:
        latencies = pooled_ratios(rounds[ours], rounds[name], PERCENTILES.values())
        found[name] = {title: spread(ratios(rounds[ours], rounds[name], figure)) for figure, title in MEDIANS.items()}
        found[name].update((title, latencies[percent]) for title, percent in PERCENTILES.items())
    return found


def least_cpu(rounds):
    """What other programs on the machine disturb only ever adds."""
    return min(each["cpu_us"] for each in rounds)


def bars(result):
    """(what, figure, reached) of the cases that were run."""
    ran = {case["title"]: each for case, *each in zip(result["cases"], result["figures"], result["ratios"])}
    for case, title, ours, theirs, most in BARS:
        if case in ran:
            figures, ratio = ran[case]
            one, other = figures[ours][title], figures[theirs][title]
            yield (f"{case}: {title} of {ours} / {theirs}, at most {most}",
                   f"{one / other:.2f} ({number(one)} / {number(other)}; {with_range(ratio[theirs][title])})", one <= most * other)


def missed(result):
    return missed_bars(bars(result))


def show(result):
    rows = []
    for case, figures, compared_with, rounds in zip(*(result[key] for key in ("cases", "figures", "ratios", "rounds"))):
        rows.append([case["title"]])
        for name, each in figures.items():
            rows.append([f"  {name}", number(each["least CPU µs"]), *(number(each[title]) for title in TITLES),
                         f"{median_of(rounds[name], 'busy'):.0%}", str(len(rounds[name]))])
        ours = case["proxies"][0]
        for name, ratio in compared_with.items():
            rows.append([f"  {ours} / {name}", f"{figures[ours]['least CPU µs'] / figures[name]['least CPU µs']:.2f}",
                         *(with_range(ratio[title]) for title in TITLES), "", ""])
    alone = ", ".join(f"{path} {number(run['requests'] / run['wall_us'] * 1e6)}" for path, run in result["upstream_alone"].items())
    judged = list(bars(result))
    return (table(["", "least CPU µs", *TITLES, "of its CPU", "n"], rows) + f"\n\nwrk straight to the upstream, requests/s: {alone}" +
            ("\n\n" + bar_table(judged) if judged else ""))
