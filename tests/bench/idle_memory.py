"""Memory of an idle keep-alive connection that has carried one request."""
import socket
import statistics
import time

import servers
from figures import bar_table, missed_bars, number, table
from processes import NotMeasured, Programs

CONNECTIONS = 1000
BEFORE = 20                 # connections used and closed before the first look, so that what is made once is not counted
SETTLE_SECONDS = 0.5
REQUEST = b"GET /2k HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n"
NAMES = ("gateway", "nginx", "haproxy")
BAR_KIB = 40


def measure(bench):
    rounds = {name: [] for name in NAMES}
    for _ in range(bench.memory_rounds):
        with Programs(bench.folder) as programs:
            port = servers.upstream(programs, bench.load_cpu).port
            found = (servers.gateway(programs, "gateway", bench.base, port, cpu=bench.proxy_cpu, workers=1, pool_hot=0),
                     servers.nginx(programs, "nginx", port, bench.proxy_cpu),
                     servers.haproxy(programs, "haproxy", port, bench.proxy_cpu))
            for program in found:
                rounds[program.name].append(measure_one(program))
    return {"connections": CONNECTIONS, "rounds": rounds}


def measure_one(program):
    close(used_connections(program, BEFORE))
    time.sleep(SETTLE_SECONDS)
    before = program.rss_bytes()
    held = used_connections(program, CONNECTIONS)
    time.sleep(SETTLE_SECONDS)
    after = program.rss_bytes()
    close(held)
    return {"before": before, "after": after, "per_connection": (after - before) / CONNECTIONS}


def used_connections(program, count):
    held = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", program.port), timeout=5)
        held.append(connection)
        connection.sendall(REQUEST)
        left = 2048   # of the body; the head comes first
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < left:
            more = connection.recv(16384)
            if not more:
                raise NotMeasured(f"{program.name}: closed an idle connection after {len(held)}")
            answer += more
    return held


def close(connections):
    for connection in connections:
        connection.close()


def bars(result):
    """(what, figure, reached)"""
    kib = statistics.median(each["per_connection"] for each in result["rounds"]["gateway"]) / 1024
    yield f"an idle connection, at most {BAR_KIB} KiB", f"{number(kib)} KiB", kib <= BAR_KIB


def missed(result):
    return missed_bars(bars(result))


def show(result):
    rounds = result["rounds"]
    rows = [[name, *(number(statistics.median(each[key] for each in rounds[name]) / 1024)
                     for key in ("before", "after", "per_connection"))] for name in NAMES]
    for name in NAMES[1:]:
        ratios = [a["per_connection"] / b["per_connection"] for a, b in zip(rounds["gateway"], rounds[name])]
        rows.append([f"gateway / {name}", "", "", f"{statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]"])
    return table(["KiB of RSS", "before", f"with {result['connections']} idle", "per connection"], rows) + "\n\n" + bar_table(bars(result))
