"""A command reaches nothing outside of its Sprite, although there is something to reach."""
import contextlib
import socketserver
import threading
import urllib.parse

import pytest

VISIT = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as s:
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            print(place, s.recv(99))
    except OSError: pass
print("done")
"""


@contextlib.contextmanager
def greeter():
    """A server of this machine: its port, and whom it has greeted."""
    greeted = []

    class Greeter(socketserver.BaseRequestHandler):
        def handle(self):
            greeted.append(self.client_address)
            self.request.sendall(b"hello")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], greeted
        server.shutdown()


@pytest.mark.parametrize("hot", [0, 1])
def test_nothing_is_reached(rig, hot):
    """By a Sprite made for the command and by one that waited for it; the same places are open to a Sprite without a policy."""
    with greeter() as (port, greeted):
        emulator = rig.emulator("--resolve", f"open.test=127.0.0.1:{port}")
        gateway = rig.gateway(emulator=emulator, pool_hot=hot)
        if hot:
            gateway.until_ready()

        emulator.view.create("control")
        answer = emulator.view.http.post(
            "/v1/sprites/control/exec", headers={"Authorization": f"Bearer {emulator.token}"},
            params=[("cmd", word) for word in ("python3", "-c", VISIT, "open.test:80", "198.18.0.1:80")])
        assert answer.content.count(b"b'hello'") == 2, answer.content
        del greeted[:]

        urls = (gateway.url, gateway.admin, rig.stack.redis_url, rig.stack.datasette, emulator.url)
        services = [urllib.parse.urlsplit(url).netloc for url in urls]
        ran = gateway.run(argv=["python3", "-c", VISIT, "open.test:80", "198.18.0.1:80", f"127.0.0.1:{port}", f"localhost:{port}",
                                "1.1.1.1:80", "10.0.0.1:80", "::1:80", *services])
        assert (ran.stdout, ran.stderr, greeted) == ("done\n", "", [])
        ran = gateway.run("cat /proc/net/route | tail -n +2; cut -d: -f1 -s /proc/net/dev; cat /.sprite/policy/network.json")
        assert ran.stdout.split() == ["lo", '{"rules":', '[{"domain":', '"*",', '"action":', '"deny"}]}']
