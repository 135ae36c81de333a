"""Run inside a network and mount namespace of its own: deploy/prometheus/fly/run on a private network like Fly's, with a gateway that
has no Redis. Prints what it saw as JSON."""
import http.server
import json
import os
import pathlib
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

BINARY, RUN, RESOLV, TRY = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4]
APP, NAMESERVER, HOMES, ELSEWHERE = "my-gateway", "fdaa::3", ("fdaa:0:1::2", "fdaa:0:1::3"), "fdaa:0:1::9"
AAAA = 28


class Names:
    """The name server of the network: it knows where the machines of one app are, and that nothing else is there."""

    def __init__(self):
        self.homes = [HOMES[0]]
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.socket.bind((NAMESERVER, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, sender = self.socket.recvfrom(4096)
            self.socket.sendto(self.answer(query), sender)

    def answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12:at + 5]
        known = ".".join(labels) == f"{APP}.internal"
        homes = self.homes if known and struct.unpack(">H", question[-4:-2])[0] == AAAA else []
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", AAAA, 1, 5, 16) + socket.inet_pton(socket.AF_INET6, home) for home in homes)
        return query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, len(homes), 0, 0) + question + records


class Elsewhere(http.server.ThreadingHTTPServer):
    """Who is called."""
    address_family = socket.AF_INET6
    daemon_threads = True
    calls = {"/page": [], "/ticket": []}


class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Elsewhere.calls[self.path] += [alert["labels"] for alert in body["alerts"] if alert["status"] == "firing"]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass


def until(condition, what, seconds=80):
    began = time.monotonic()
    while not (value := condition()):
        if time.monotonic() - began > seconds:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.2)
    return value


def ask(path):
    try:
        with urllib.request.urlopen("http://[::1]:9090/api/v1/" + path, timeout=60) as answer:
            return json.load(answer)["data"]
    except (urllib.error.URLError, OSError):
        return None


def scraped():
    """The gateways that Prometheus gets metrics of."""
    return sorted(target["labels"]["instance"] for target in (ask("targets") or {}).get("activeTargets", []) if target["health"] == "up")


def start():
    return subprocess.Popen([RUN], stdin=subprocess.DEVNULL, stdout=sys.stderr, env={
        **os.environ, "GATEWAY_APP": APP, "ALERTS_DATA": "/run/volume", "ALERT_PAGE": f"http://[{ELSEWHERE}]:80/page",
        "ALERT_TICKET": f"http://[{ELSEWHERE}]:80/ticket"})


def programs(alerts):
    """{its program: pid}"""
    children = pathlib.Path(f"/proc/{alerts.pid}/task/{alerts.pid}/children").read_text(encoding="ascii").split()
    return {pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(): int(pid) for pid in children}


def user_of(pid):
    return pathlib.Path(f"/proc/{pid}").stat().st_uid


def both_run(alerts):
    return set(programs(alerts)) == {"prometheus", "prometheus-alertmanager"} and ask("targets") is not None


os.umask(0o022)
for command in (["ip", "link", "set", "lo", "up"], *(["ip", "-6", "address", "add", f"{home}/128", "dev", "lo", "nodad"] for home in (NAMESERVER, *HOMES, ELSEWHERE)),
                ["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], ["mount", "--bind", str(RESOLV), "/etc/resolv.conf"]):
    subprocess.run(command, check=True, timeout=60)
RESOLV.write_text(f"nameserver {NAMESERVER}\n", encoding="utf-8")
names = Names()
threading.Thread(target=Elsewhere((ELSEWHERE, 80), Answer).serve_forever, daemon=True).start()
gateway = subprocess.Popen([BINARY, "serve"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={
    **os.environ, "SPRITEGATE_PEPPER": "0" * 32, "SPRITEGATE_SPRITES_TOKEN": "none", "SPRITEGATE_SPRITES_URL": "http://[::1]:1",
    "SPRITEGATE_REDIS_URL": "redis://[::1]:1", "SPRITEGATE_DATASETTE_URL": "http://[::1]:1", "SPRITEGATE_POOL_HOT": "0"})
alerts = start()
try:
    seen = {"first": until(scraped, "the gateway is found and scraped")}
    seen["users"] = sorted({user_of(pid) for pid in programs(alerts).values()})
    seen["secrets"] = sorted({f"{path.stat().st_mode & 0o777:o}" for path in pathlib.Path("/run/spritegate-alerts/secret").iterdir()})
    names.homes = [HOMES[1]]
    for words in (shlex.split(TRY), [word.replace("page", "ticket") for word in shlex.split(TRY)]):
        subprocess.run(words, check=True, stdout=sys.stderr, timeout=60)
    until(lambda: Elsewhere.calls["/ticket"], "a ticket comes")
    seen["moved"] = until(lambda: scraped() == [f"[{HOMES[1]}]:9091"] and scraped(), "the machine that has taken its place is found and scraped")
    until(lambda: {"SpritegateTest", "SpritegateRedisDown"} <= {call["alertname"] for call in Elsewhere.calls["/page"]},
          "somebody is called for what fails")
    seen["calls"] = Elsewhere.calls
    seen["memory_mib"] = {name: int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
                          for name, pid in programs(alerts).items()}
    alerts.send_signal(signal.SIGTERM)
    seen["told"] = alerts.wait(60)
    alerts = start()
    until(lambda: both_run(alerts), "both run")
    os.kill(programs(alerts)["prometheus-alertmanager"], signal.SIGKILL)
    seen["alone"] = alerts.wait(60)
finally:
    for process in (gateway, alerts):
        if process.poll() is None:
            process.terminate()
            process.wait(60)
json.dump(seen, sys.stdout)
