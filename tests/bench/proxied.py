"""Proxied requests: the gateway, nginx and HAProxy before the same upstream, one after another in every round."""
import dataclasses
import http.client

import servers
from figures import median_of, number, ratio, table
from load import BROWSER, loaded, wrk
from processes import NotMeasured, Programs

FIGURES = {"cpu_us": "CPU µs/request", "rate": "requests/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}
ALL = ("gateway", "nginx", "haproxy")


@dataclasses.dataclass
class Case:
    title: str
    path: str
    connections: int
    proxies: tuple = ALL
    keep: bool = True


CASES = (
    Case("2 KB with Content-Length, 64 connections", "/2k", 64),
    Case("2 KB chunked, 64 connections", "/chunked", 64),
    Case("64 KB with Content-Length, 64 connections", "/64k", 64),
    Case("2 KB with Content-Length, 1 connection", "/2k", 1),
    Case("2 KB with Content-Length, 16 connections, each request on a new one", "/2k", 16, keep=False),
    Case("2 KB with Content-Length, 64 connections, access log to a file", "/2k", 64, ("gateway-log", "nginx-log")),
)


def measure(bench):
    with Programs(bench.folder) as programs:
        upstream = servers.upstream(programs, bench.load_cpu)
        proxies = start_proxies(bench, programs, upstream.port)
        check_answers(upstream, proxies.values())
        alone = {case.path: wrk(upstream.port, case.path, 64, 1, bench.load_cpu) for case in CASES}
        rounds = [{name: [] for name in case.proxies} for case in CASES]
        for number_of_round in range(-1, bench.rounds):
            one_round(bench, proxies, rounds, number_of_round)
    return {"cases": [dataclasses.asdict(case) for case in CASES], "rounds": rounds, "upstream_alone": alone}


def start_proxies(bench, programs, port):
    cpu = bench.proxy_cpu
    common = {"workers": 1, "pool_hot": 0, "cpu": cpu}
    found = [
        servers.gateway(programs, "gateway", bench.base, port, **common),
        servers.gateway(programs, "gateway-log", bench.base, port, access_log=bench.folder / "gateway.access", **common),
        servers.nginx(programs, "nginx", port, cpu),
        servers.nginx(programs, "nginx-log", port, cpu, access_log=bench.folder / "nginx.access"),
        servers.haproxy(programs, "haproxy", port, cpu)]
    return {proxy.name: proxy for proxy in found}


def check_answers(upstream, proxies):
    """Nothing is measured that does not do the work. Whether a short answer leaves chunked is the proxy's choice."""
    for path in {case.path for case in CASES}:
        wanted = answer(upstream, path)
        for proxy in proxies:
            if answer(proxy, path) != wanted:
                raise NotMeasured(f"{proxy.name} changes the answer to {path}: status {answer(proxy, path)[0]}")


def answer(program, path):
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    result = response.status, response.getheader("content-type"), response.read()
    connection.close()
    return result


def one_round(bench, proxies, rounds, index):
    """Every case by every proxy, each time another one first. Round -1 warms up and is forgotten."""
    for case, kept in zip(CASES, rounds):
        turn = index % len(case.proxies)
        for name in case.proxies[turn:] + case.proxies[:turn]:
            seconds = 1 if index < 0 else bench.seconds
            headers = BROWSER if case.keep else {**BROWSER, "Connection": "close"}
            run = loaded(proxies[name], case.path, case.connections, seconds, cpu=bench.load_cpu, headers=headers)
            if index >= 0:
                kept[name].append(run)


def show(result):
    rows = []
    for case, rounds in zip(CASES, result["rounds"]):
        ours, *others = case.proxies
        rows.append([case.title])
        for name in case.proxies:
            rows.append([f"  {name}", *(number(median_of(rounds[name], figure)) for figure in FIGURES),
                         f"{median_of(rounds[name], 'busy'):.0%}", str(len(rounds[name]))])
        for name in others:
            rows.append([f"  {ours} / {name}", *(ratio(rounds[ours], rounds[name], figure) for figure in FIGURES), "", ""])
    alone = ", ".join(f"{path} {number(run['requests'] / run['wall_us'] * 1e6)}" for path, run in result["upstream_alone"].items())
    return table(["", *FIGURES.values(), "of its CPU", "n"], rows) + f"\n\nwrk straight to the upstream, requests/s: {alone}"

