"""Two gateways on one Redis are restarted one after the other, under load: nobody sees it."""
import concurrent.futures
import itertools
import select
import signal
import threading
import time

import pytest

from rig import free_port, until
from wire import CutOff, Wire, exec_request

# How long a health page is believed, and, longer than that and than a loaded machine stops a thread, how long a gateway that has to go serves on.
BELIEVED_S = 0.5
NOTICE_S = 6


class Balancer:
    """What a load balancer does, no more: sends to who says to be healthy, tries another one only when a connection is refused."""

    def __init__(self, ports):
        self.ports = itertools.cycle(ports)
        self.lock = threading.Lock()
        self.known = {}     # port: until when what is believed

    def is_healthy(self, port):
        now = time.monotonic()
        until_when, healthy = self.known.get(port, (0, False))
        if now < until_when:
            return healthy
        try:
            with Wire(port) as wire:
                wire.ask("GET", "/-/gateway/health")
                healthy = wire.answer().status == 200
        except (CutOff, ConnectionError):
            healthy = False
        self.known[port] = now + BELIEVED_S, healthy
        return healthy

    def connect(self):
        """To whoever is next and healthy."""
        def found():
            with self.lock:
                port = next(self.ports)
            if not self.is_healthy(port):
                return None
            try:
                return Wire(port)
            except ConnectionRefusedError:
                return None
        return until(found, "one of the gateways serves", 60, interval=0.001)


class Load:
    """Requests until it is over, each of which must be answered as without any restart. Nothing is sent twice."""

    def __init__(self, balancer, token):
        self.balancer, self.token = balancer, token
        self.over, self.answered = threading.Event(), {"page": 0, "command": 0, "kept page": 0, "kept command": 0}
        self.bad = []
        self.told = 0       # clients that keep their connection were told that it ends

    def ask(self, kind, wire):
        if kind.endswith("page"):
            wire.ask("GET", "/-/versions.json")
            answer = wire.answer()
            assert answer.status == 200 and "datasette" in answer.json(), answer.raw
        else:
            wire.send(exec_request(self.token, b'{"command": "echo hello"}'))
            answer = wire.answer()
            assert answer.status == 200 and answer.json()["outcome"] == "exited" and answer.json()["stdout"] == "hello\n", answer.text
        return answer

    def ends(self, kind, wire):
        """Asks. Whether this was the connection's last request."""
        try:
            said = self.ask(kind, wire)["Connection"] or ""
        except Exception as failure:    # whatever it is, a client would have seen it
            self.bad.append((kind, repr(failure)))
            return True
        self.answered[kind] += 1
        self.told += kind.startswith("kept") and said.lower() == "close"
        return not kind.startswith("kept") or said.lower() == "close"

    def run(self, kind):
        wire = None
        while not self.over.is_set():
            # What an idle connection has to say is that it is closed: every client looks before it uses one.
            if wire and select.select([wire.socket], [], [], 0)[0]:
                wire.close()
                wire = None
            wire = wire or self.balancer.connect()
            if self.ends(kind, wire):
                wire.close()
                wire = None
            self.over.wait(0.01)
        if wire:
            wire.close()

    def until_more(self, count=5):
        """Everything goes on."""
        before = dict(self.answered)
        until(lambda: self.bad or all(self.answered[kind] >= before[kind] + count for kind in before), lambda: f"answered {self.answered}", 60)


@pytest.mark.timeout(300)
def test_nobody_sees_it(rig):
    emulator, redis = rig.emulator(), rig.redis()
    places = [{"listen": f"127.0.0.1:{free_port()}", "instance": f"restarted-{name}"} for name in "ab"]

    def start(place):
        gateway = rig.gateway(redis=redis, emulator=emulator, token=False, pool_hot=1, pool_max=6, pool_wait_seconds=60, drain_accept_seconds=NOTICE_S, **place)
        gateway.until_ready(60)
        return gateway

    gateways = [start(place) for place in places]
    load = Load(Balancer([int(place["listen"].rpartition(":")[2]) for place in places]), rig.mint(redis)["token"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = [pool.submit(load.run, kind) for kind in ("page", "command", "kept page", "kept page", "kept command")]
        try:
            load.until_more()
            for at, place in enumerate(places):
                gateways[at].signal(signal.SIGTERM)
                until(lambda at=at: gateways[at].health().status_code == 503, "who asks can know", interval=0.005)
                with Wire(gateways[at].port) as late:
                    load.ask("command", late)   # who has not noticed yet is not refused
                assert gateways[at].wait(90) == 0
                load.until_more()
                gateways[at] = start(place)
                load.until_more()
        finally:
            load.over.set()
        for one in done:
            one.result()
    assert load.bad == [] and min(load.answered.values()) >= 25 and load.told, (load.bad, load.answered, load.told)
