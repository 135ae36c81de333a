"""Requests of all kinds from several clients at once, some of which leave in the middle; seeded."""
import json
import random
import threading
import time

import answers
from rig import PATIENCE, SLOWER, leases, until
from wire import CutOff, Wire, exec_request

CLIENTS = 12
MIB = 1024 * 1024
PAGES = ["/-/versions.json", "/sample/stations.json", "/sample/readings?_size=100", "/-/static/app.css", "/sample/notes/5"]
CSV = "/sample/readings.csv?_stream=on&_size=max"


class Client(threading.Thread):
    """Sends requests of all kinds; some are left in the middle of a byte stream in either direction."""

    kinds = {"exec": 30, "output": 8, "sleep": 12, "refused": 10, "page": 20, "csv": 8, "upload": 8, "rubbish": 4}   # how often, among 100

    def __init__(self, gateway, token, numbers, seed, troubled):
        super().__init__()
        self.gateway, self.token, self.numbers, self.troubled = gateway, token, numbers, troubled
        self.random = random.Random(seed)
        self.statuses, self.failures = {}, []
        self.began = 0      # the request that is under way
        self.path, self.refusals = None, set()      # of a page; what a request that must be refused is answered

    def run(self):
        try:
            while next(self.numbers, None) is not None:
                self.one()
        except Exception as failure:        # noqa: BLE001  shown by the test
            self.failures.append(repr(failure))

    def one(self):
        kind = self.random.choices(*zip(*self.kinds.items()))[0]
        data = getattr(self, kind)()
        leaves = self.may_leave(kind) and self.random.random() < 0.4
        self.began = time.monotonic()
        wire = self.connect(kind)
        try:
            if leaves and self.random.random() < 0.3:
                data = data[:self.random.randrange(len(data))]
            wire.send(data)
            if leaves:
                self.leave(wire)
            else:
                self.finish(wire, kind)
        except (CutOff, ConnectionError):
            self.cut(kind, leaves)
        finally:
            self.end(wire)

    def may_leave(self, _):
        return True

    def connect(self, _):
        return Wire(self.gateway.port, limit=90, receive_buffer=self.random.choice([None, 4096]))

    def end(self, wire):
        wire.close()

    def cut(self, *_):
        self.count("cut")

    def leave(self, wire):
        time.sleep(self.random.choice([0, 0.001, 0.01, 0.05, 0.2, 0.5]))
        if self.random.random() < 0.3:
            wire.socket.settimeout(0.5)
            try:
                wire.receive(1000)
            except TimeoutError:
                pass
        self.count("left")
        wire.reset() if self.random.random() < 0.5 else wire.close()

    def finish(self, wire, kind):
        answer = wire.answer()
        self.count(answer.status)
        self.judge(kind, answer)
        if answer.status not in self.allowed(kind):
            self.failures.append(f"{kind}: {answer.status}")

    def judge(self, kind, answer):
        if kind in ("exec", "output", "sleep"):
            self.check(answer)

    def allowed(self, kind):
        """Statuses."""
        commands = {200, 502, 503} if self.troubled else {200, 503}
        return {"refused": self.refusals, "page": {200}, "csv": {200}, "upload": {400, 403, 413}, "rubbish": {400, 414, 431, 501, 505}}.get(kind, commands)

    def check(self, answer):
        """An explicit outcome; all these commands exit with 0 when they are let."""
        if answer.status == 200:
            ran = answers.Ran(answer)
            if (ran.outcome, ran.exit_code) not in (("exited", 0), ("timed_out", None)):
                self.failures.append(f"{ran.outcome} {ran.exit_code}: {ran.stderr[:200]}")
        elif answer.status == 502:
            answers.unknown(answer)

    def count(self, what):
        self.statuses[what] = self.statuses.get(what, 0) + 1

    # -- the requests -----------------------------------------------------------

    def fields(self):
        """Of every request, beside those that it needs."""
        return ["Connection: close"]

    def command(self, **fields):
        return exec_request(self.token, json.dumps(fields).encode(), *self.fields())

    def exec(self):
        return self.command(command=f"echo {self.random.random()}", stdin="x" * self.random.choice([0, 10, 100_000]))

    def output(self):
        return self.command(command=f"head -c {self.random.choice([10_000, 3_000_000])} /dev/urandom", max_output_bytes=self.random.choice([100, 4_000_000]))

    def sleep(self):
        return self.command(command=f"sleep {self.random.choice([0.1, 0.5, 5])}", timeout_seconds=self.random.choice([0.3, 1, 10]))

    def refused(self):
        request, self.refusals = self.random.choice([
            (self.command(command=1), {422}), (exec_request("sgt_wrong", b'{"command": "true"}'), {401, 429}), (exec_request(self.token, b"{"), {400}),
            (exec_request(self.token, b'{"command": "true"}').replace(b"application/json", b"text/plain"), {415}),
            (b"PUT /-/agent/exec HTTP/1.1\r\nHost: a\r\n\r\n", {405}), (b"GET /-/agent/exec/x HTTP/1.1\r\nHost: a\r\n\r\n", {404})])
        return request

    def get(self, path):
        self.path = path
        return ("\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *self.fields()]) + "\r\n\r\n").encode()

    def page(self):
        return self.get(self.random.choice(PAGES))

    def csv(self):
        return self.get(CSV)

    def upload(self):
        body = b"x" * self.random.choice([10, 1_000_000, 3_000_000])
        head = "\r\n".join(["POST /sample/empty/-/insert HTTP/1.1", "Host: a", "Content-Type: application/json", *self.fields(), ""]).encode()
        if self.random.random() < 0.5:
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)

    def rubbish(self):
        return self.random.choice([
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00 rubbish\r\n\r\n",
            b"GET /" + b"x" * 50_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
            b"GET /-/agent//exec HTTP/1.1\r\nHost: a\r\n\r\n"])


def storm(gateway, token, requests, seed, troubled=False):
    """Sends them all; returns how often each status came. `troubled`: Sprites and Redis fail meanwhile."""
    numbers = Numbers(requests)
    clients = [Client(gateway, token, numbers, f"{seed} {i}", troubled) for i in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    failures = [failure for client in clients for failure in client.failures]
    statuses = {}
    for client in clients:
        for status, count in client.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    assert not failures, f"{len(failures)} requests went wrong: {failures[:5]}; {statuses}"
    return statuses


class Numbers:
    """A counter for several threads."""

    def __init__(self, count):
        self.left, self.lock = count, threading.Lock()

    def __next__(self):
        with self.lock:
            if not self.left:
                raise StopIteration
            self.left -= 1
            return self.left


def until_quiet(gateway, emulator, store, hot, seconds=PATIENCE):
    """Until nothing is under way any more, and what is kept for later is as it should be. A refused creation may hold back the next
    one for a minute, and the one after that for some seconds more."""
    gateway.until_ready(180 * SLOWER)
    until(lambda: gateway.metrics().get("spritegate_exec_running") == 0, "no command is under way", seconds)
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") == 0, "no request is under way", seconds)
    until(lambda: gateway.metrics().get("spritegate_exec_settlements_pending") == 0, "nothing is left to settle", seconds)
    until(lambda: leases(store) == 0, lambda: f"no lease is held; there are {leases(store)}", seconds)
    emulator.view.until_alive(hot, max(seconds, 60 * SLOWER))
    time.sleep(5)      # idle connections to Datasette are kept for 4 s


def seen(gateway):
    return {"rss": gateway.rss(), "fds": gateway.fds(), "threads": gateway.threads()}
