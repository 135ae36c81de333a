"""Run inside a network and mount namespace of its own: a gateway on an IPv6-only network whose Datasette moves. Prints what it saw as JSON."""
import contextlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

BINARY, HOSTS = sys.argv[1], pathlib.Path(sys.argv[2])
NAME = "datasette.internal"
HOMES = ("fdaa:0:1::2", "fdaa:0:1::3")


class Datasette(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True

    def __init__(self, address):
        self.connections = []
        super().__init__((address, 8001), Page)

    def get_request(self):
        connection, peer = super().get_request()
        self.connections.append(connection)
        return connection, peer

    def leave(self):
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)   # also those that a handler still reads from


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"home": self.server.server_address[0], "host": self.headers["Host"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def live_at(address):
    """As after a restart on the private network: the name's only address is this one."""
    HOSTS.write_text(f"::1 localhost\n{address} {NAME}\n", encoding="utf-8")
    datasette = Datasette(address)
    threading.Thread(target=datasette.serve_forever, daemon=True).start()
    return datasette


def page():
    try:
        with urllib.request.urlopen(f"http://[{HOMES[0]}]:8080/", timeout=60) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError):
        return None


def until_page(seconds=60):
    began = time.monotonic()
    while not (found := page()):
        if time.monotonic() - began > seconds:
            sys.exit("no page")
        time.sleep(0.05)
    return {**found, "seconds": time.monotonic() - began}


for command in (["ip", "link", "set", "lo", "up"], *(["ip", "-6", "address", "add", f"{home}/128", "dev", "lo", "nodad"] for home in HOMES),
                ["mount", "--bind", str(HOSTS), "/etc/hosts"]):
    subprocess.run(command, check=True, timeout=60)
first = live_at(HOMES[0])
gateway = subprocess.Popen([BINARY, "serve"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={
    **os.environ, "SPRITEGATE_LISTEN": "[::]:8080", "SPRITEGATE_ADMIN_LISTEN": "[::]:9091", "SPRITEGATE_PEPPER": "0" * 32,
    "SPRITEGATE_SPRITES_TOKEN": "none", "SPRITEGATE_SPRITES_URL": "http://[::1]:1", "SPRITEGATE_REDIS_URL": "redis://[::1]:1",
    "SPRITEGATE_POOL_HOT": "0", "SPRITEGATE_DATASETTE_URL": f"http://{NAME}:8001"})
try:
    before = until_page()
    first.leave()
    second = live_at(HOMES[1])
    after = until_page()
finally:
    gateway.terminate()
    code = gateway.wait(30)
json.dump({"before": before, "after": after, "code": code}, sys.stdout)
