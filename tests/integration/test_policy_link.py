"""Admission and its link to Redis, through a small program of our own (tests/drivers): what happens when Redis is away."""
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import rig
from line_driver import LineDriver
from policy_store import PEPPER, Store, Token
from rig import PATIENCE, SLOWER, Part, Redis, free_port, until

GRANTED, INVALID, SCOPE, NETWORK, COMMAND, VARIABLE, INPUT, QUOTA, UNAVAILABLE = range(9)
TIMEOUT_MS = 500 * SLOWER      # the default of 40 would fail now and then on a busy machine; nothing here depends on the figure
OPEN, CLOSED = 1, 0


class Driver(LineDriver):
    def __init__(self, url, timeout_ms=TIMEOUT_MS, env=None):
        self.breaker = OPEN
        super().__init__("admission_driver", url, timeout_ms, PEPPER.decode(), env=env)

    def take(self, line):
        super().take(line)
        self.breaker = line.get("breaker", self.breaker)

    def sockets(self):
        folder = f"/proc/{self.process.pid}/fd/"
        links = []
        for fd in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(folder + fd))
        return {link for link in links if link.startswith("socket:")}

    def until_up(self):
        if self.breaker != CLOSED:
            self.next(lambda line: line.get("breaker") == CLOSED)

    def until_down(self):
        if self.breaker == CLOSED:
            self.next(lambda line: line.get("breaker") == OPEN)

    def ask(self, number, token, program="bash", want=1000, secret=None):
        self.send("decide", number, token.text(secret), program, want)

    def ask_and_leave(self, numbers, token):
        """In one write, so that the driver reads it whole and Redis cannot answer in between."""
        lines = [f"decide {n} {token.text()} bash 1000\ncancel {n}\n" for n in numbers]
        assert len("".join(lines)) < 4096
        self.process.stdin.write("".join(lines))

    def ask_at_once(self, numbers, token, then=""):
        """In one write: none of them can time out before the last one is read."""
        self.process.stdin.write("".join(f"decide {n} {token.text()} bash 1000\n" for n in numbers) + then)

    def answer(self, number):
        return self.next(lambda line: line.get("n") == number)

    def decide(self, token, number=0, **more):
        self.ask(number, token, **more)
        return self.answer(number)

    def state(self):
        self.send("state")
        return self.next("unsettled")

    def until_settled(self):
        until(lambda: self.state()["unsettled"] == 0, "everything is settled", interval=0.05)

    def quit(self):
        self.send("quit")
        self.until_freed()

    def until_freed(self):
        self.next("freed")
        assert self.process.wait(PATIENCE) == 0, self.errors


@contextlib.contextmanager
def driving(url, **more):
    driver = Driver(url, **more)
    try:
        yield driver
        driver.quit()
    finally:
        driver.process.kill()
        driver.process.wait()
        driver.log.close()


@pytest.fixture
def server():
    part = Redis()
    yield part
    part.kill()


@pytest.fixture
def store(server):
    return Store(server.client)


@pytest.fixture
def token(store):
    return Token(store, bud_ms=10**9)


@pytest.fixture
def driver(server):
    with driving(server.url) as driver:
        driver.until_up()
        yield driver


def nothing_left(store, token, used=0):
    assert not store.leases(token)
    for key in store.redis.scan_iter(f"sg:{{g}}:b:{token.kid}:*"):
        assert store.redis.hget(key, "held") == "0"
        assert int(store.redis.hget(key, "used") or 0) == used


def test_from_grant_to_settlement(driver, store, token):
    answer = driver.decide(token)
    assert (answer["code"], answer["reason"], answer["kid"], answer["actor"]) == (GRANTED, "granted", token.kid, "ann")
    assert answer["granted_ms"] == 1000 and len(answer["lease"]) == 24
    lease, = store.leases(token)
    assert lease.startswith(f"{answer['lease']}:1000:{answer['day']}:")
    driver.send("settle", 0, 400, 7)
    driver.until_settled()
    nothing_left(store, token, used=400)
    assert store.budget(token, answer["day"]) == {"used": 400, "held": 0, "out": 7, "out_held": 0, "reqs": 1}


def test_a_refund(driver, store):
    token = Token(store, rate_n=1, rate_per_ms=3_600_000, burst=1)
    for number in range(3):
        assert driver.decide(token, number)["code"] == GRANTED
        driver.send("refund", number)
        driver.send("refund", number)
        driver.until_settled()
        nothing_left(store, token)
    assert driver.decide(token, 3)["code"] == GRANTED
    driver.send("settle", 3, 0, 0)
    driver.until_settled()
    assert driver.decide(token, 4)["violated"] == ["rate"]


def test_refusals(driver, store, token):
    assert driver.decide(token, secret="x" * 32)["reason"] == "bad-mac"
    assert driver.decide(Token(store, status="revoked"))["reason"] == "revoked"
    driver.send("decide", 5, "sgt_rubbish", "bash", 1)
    assert (driver.answer(5)["code"], driver.seen[-1]["reason"]) == (INVALID, "malformed")
    assert driver.decide(Token(store, scopes="other"))["code"] == SCOPE
    listed = Token(store, cmds="ls")
    assert driver.decide(listed)["code"] == COMMAND
    assert driver.decide(listed, program="ls")["code"] == GRANTED
    full = Token(store, conc=1, burst=1, rate_n=1, rate_per_ms=60_000)
    driver.decide(full)
    answer = driver.decide(full)
    assert (answer["code"], answer["violated"]) == (QUOTA, ["rate", "concurrency"])
    assert 59_000 < answer["retry_after_ms"] <= 60_000
    assert answer["rate_limit"] == '"rate";r=0;t=60, "concurrency";r=0'


def requests(store):
    return sum(int(store.redis.hget(key, "reqs")) for key in store.redis.scan_iter("sg:{g}:b:*"))


def grants(store):
    """Those that have been given back included: each adds a lease to the token's and one to the actor's."""
    return store.redis.info("commandstats").get("cmdstat_zadd", {"calls": 0})["calls"] // 2


def test_a_caller_who_left_holds_nothing(driver, store, token):
    driver.ask_and_leave(range(20), token)      # Redis does not know the script yet: nothing runs and nothing is sent again
    assert driver.decide(token, 20)["code"] == GRANTED
    assert requests(store) == 1
    driver.send("settle", 20, 0, 0)
    before = grants(store)
    driver.ask_and_leave(range(20), token)
    until(lambda: grants(store) == before + 20, "all were granted", interval=0.005)
    driver.until_settled()
    until(lambda: not store.leases(token), "no lease is left", interval=0.01)
    nothing_left(store, token)
    assert [line["n"] for line in driver.seen if "code" in line] == [20]
    assert requests(store) == 1, "what nobody waited for is counted"


def test_forgotten_scripts_are_sent_again(driver, store, token):
    assert driver.decide(token)["code"] == GRANTED
    store.redis.script_flush()
    assert driver.decide(token, 1)["code"] == GRANTED
    store.redis.script_flush()
    driver.send("settle", 0, 0, 0)
    driver.send("settle", 1, 0, 0)
    driver.until_settled()
    nothing_left(store, token)


def test_a_redis_that_is_silent(driver, server, store, token):
    """Nobody waits longer than the limit, then nobody waits at all, and what was granted in secret is given back."""
    driver.decide(token, 99)
    driver.send("settle", 99, 0, 0)
    driver.until_settled()
    before = grants(store)
    with server.frozen():
        for number in range(5):
            driver.ask(number, token)
        for number in range(5):
            answer = driver.answer(number)
            assert (answer["code"], answer["reason"], answer["retry_after_ms"]) == (UNAVAILABLE, "timeout", 2000)
            assert (TIMEOUT_MS - 1) * 1000 < answer["us"] < (TIMEOUT_MS + 10_000) * 1000
        assert driver.breaker != CLOSED, "after five failures nobody is asked any more"
        for number in range(5, 10):
            answer = driver.decide(token, number)
            assert (answer["code"], answer["reason"]) == (UNAVAILABLE, "redis-down")
    driver.until_up()
    driver.until_settled()
    until(lambda: not store.leases(token), "no lease is left", interval=0.01)
    nothing_left(store, token)
    assert grants(store) == before + 5, "the five that timed out had been granted after all"
    day = driver.decide(token, 11)["day"]
    assert store.budget(token, day)["reqs"] == 2, "commands that never ran are counted"


def test_who_was_held_up_does_not_blame_redis(server, store, token):
    """An answer that came in time and is read late is no timeout."""
    with driving(server.url, timeout_ms=5000 * SLOWER) as driver:
        driver.until_up()
        with contextlib.ExitStack() as redis:
            assert driver.decide(token, 9)["code"] == GRANTED
            redis.enter_context(server.frozen())
            driver.ask(0, token)
            driver.state()
            time.sleep(0.2)     # the question leaves at the end of the driver's turn
            os.kill(driver.process.pid, signal.SIGSTOP)
        try:
            until(lambda: len(store.leases(token)) == 2, "it is granted")
            time.sleep(5.2 * SLOWER)
        finally:
            os.kill(driver.process.pid, signal.SIGCONT)
        assert driver.answer(0)["code"] == GRANTED


def test_a_lease_that_cannot_be_settled_blocks_no_other_and_is_settled_as_soon_as_it_can_be(driver, store, token):
    other, key, aside = Token(store), f"sg:{{g}}:c:{token.kid}", "sg:{g}:aside"
    assert driver.decide(token, 0)["code"] == driver.decide(other, 1)["code"] == GRANTED
    store.redis.rename(key, aside)
    store.redis.set(key, "of another type")
    driver.send("settle", 0, 10, 0)
    driver.send("settle", 1, 10, 0)
    until(lambda: "cannot settle lease" in driver.errors, "it is said")
    until(lambda: driver.state()["unsettled"] == 1, "the other one is settled")
    nothing_left(store, other, used=10)
    assert driver.state()["up"] and driver.decide(other, 2)["code"] == GRANTED
    driver.send("settle", 2, 5, 0)
    store.redis.rename(aside, key)
    driver.until_settled()
    nothing_left(store, token, used=10)
    assert driver.errors.count("cannot settle lease") == 1


def test_keys_of_another_type_are_no_failures_of_redis(driver, store, token):
    """However many commands of one token meet them, nobody else is refused for that."""
    other = Token(store)
    for number in range(12):
        assert driver.decide(token, number)["code"] == GRANTED
    store.redis.set(f"sg:{{g}}:c:{token.kid}", "of another type")
    for number in range(12):
        driver.send("settle", number, 10, 0)
    for number in range(12, 24):
        answer = driver.decide(token, number)
        assert (answer["code"], answer["reason"]) == (UNAVAILABLE, "redis-error")
    until(lambda: driver.errors.count("cannot settle lease") == 12, "it is said of each")
    assert driver.errors.count(f"Redis cannot decide about {token.kid}") == 1
    assert "it answers" not in driver.errors, "the line that tells of a loss is kept for one"
    assert driver.decide(other, 24)["code"] == GRANTED
    assert not [line for line in driver.seen if line.get("breaker") == OPEN], driver.errors
    assert driver.state()["unsettled"] == 12, "what was refused so holds nothing that could be given back"


class SlowLine:
    """A TCP line to Redis whose answers take `delay` seconds."""

    def __init__(self, port):
        self.to, self.delay = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                threading.Thread(target=self.copy, args=(near, far, lambda: 0), daemon=True).start()
                threading.Thread(target=self.copy, args=(far, near, lambda: self.delay), daemon=True).start()

    @staticmethod
    def copy(source, target, delay):
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                time.sleep(delay())
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_redis_that_is_slow(server, store, token):
    """Answers that come too late do not open the way again; what they granted is given back."""
    line = SlowLine(server.port)
    with driving(f"redis://127.0.0.1:{line.port}") as driver:
        driver.until_up()
        line.delay = 2.5 * TIMEOUT_MS / 1000
        for number in range(5):
            driver.ask(number, token)
        for number in range(5):
            assert driver.answer(number)["reason"] == "timeout"
        assert driver.breaker != CLOSED
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert driver.decide(token, 9)["reason"] == "redis-down"
            time.sleep(0.01)
        line.delay = 0
        driver.until_up()
        driver.until_settled()
        nothing_left(store, token)
        assert driver.decide(token, 10)["code"] == GRANTED
    line.listener.close()


def test_a_connection_that_stays_silent_is_given_up(driver, server, store, token):
    old = driver.sockets()
    assert len(old) == 1
    with server.frozen():
        for number in range(5):
            driver.ask(number, token)
        driver.until_down()
        until(lambda: not old & driver.sockets(), "the connection is given up", interval=0.05)
    driver.until_up()
    driver.until_settled()
    until(lambda: not store.leases(token), "no lease is left", interval=0.01)
    nothing_left(store, token)


def test_an_idle_connection_that_died_is_noticed_without_a_caller(driver, server):
    with server.frozen():
        driver.next(lambda line: line.get("breaker") == OPEN)


def test_a_redis_that_is_killed_and_comes_back(driver, server, store, token):
    driver.decide(token, 0)
    driver.decide(token, 1)
    with server.frozen():
        driver.ask(2, token)
        time.sleep(TIMEOUT_MS / 4000)
        server.signal(signal.SIGKILL)
    server.process.wait(PATIENCE)
    answer = driver.answer(2)
    assert answer["code"] == UNAVAILABLE and answer["reason"] in ("connection-lost", "timeout")
    driver.until_down()
    assert driver.decide(token, 3)["reason"] == "redis-down"
    driver.send("settle", 0, 300, 0)
    driver.send("settle", 1, 300, 0)
    time.sleep(0.2)
    assert driver.state() == {"unsettled": 3, "up": False}
    again = server.again()
    try:
        driver.until_up()
        driver.until_settled()
        nothing_left(store, token, used=600)
        assert driver.decide(token, 4)["code"] == GRANTED
    finally:
        again.kill()


def test_started_before_redis(store, token):
    port = free_port()
    with driving(f"redis://127.0.0.1:{port}") as driver:
        assert driver.decide(token)["reason"] == "redis-down"
        server = Redis(port)
        try:
            driver.until_up()
            assert driver.decide(Token(Store(server.client)))["code"] == GRANTED
        finally:
            server.kill()
    assert driver.process.returncode == 0


def test_bounds(driver, server, store, token):
    """64 questions and 256 settlements at most (the driver's options); what is beyond is refused, not queued."""
    with server.frozen():
        driver.ask_at_once(range(70), token)
        answers = [driver.answer(number) for number in (*range(64, 70), *range(64))]
        assert [answer["reason"] for answer in answers[:6]] == ["too-many-pending"] * 6
        assert {answer["reason"] for answer in answers[6:]} == {"timeout"}
        for number in range(300):
            driver.send("settle", 999, 0, 0)
        for _ in range(300 - 256):
            driver.next("full")
        assert driver.state()["unsettled"] == 256
    driver.until_up()
    driver.until_settled()


def test_ends_in_order_while_everything_is_under_way(server, store, token):
    """No callback after the end, no handle left: the driver closes its loop and ends with 0."""
    with driving(server.url) as driver:
        driver.until_up()
        with server.frozen():
            driver.ask_at_once(range(10), token, "cancel 3\nquit\n")
            driver.until_freed()
            assert not any("code" in line for line in driver.seen)
            driver.quit = lambda: None


# --- where Redis is ----------------------------------------------------------------------------------------------------

def own_redis(*flags):
    port = free_port()
    part = Part("redis", ["redis-server", "--port", port, "--bind", "127.0.0.1 ::1", "--save", "", "--dir", rig.LOGS, *flags])
    part.port = port
    part.client = rig.redis.Redis(port=port, decode_responses=True)
    return part


@contextlib.contextmanager
def redis_with(*flags, client=None):
    part = own_redis(*flags)
    if client:
        part.client = client(part)

    def answers():
        try:
            return part.client.ping()
        except rig.redis.RedisError:
            return False
    try:
        part.until_up(answers)
        yield part
    finally:
        part.kill()


def works(url, client, **more):
    with driving(url, **more) as driver:
        driver.until_up()
        token = Token(Store(client))
        assert driver.decide(token)["code"] == GRANTED
        driver.send("settle", 0, 0, 0)
        driver.until_settled()
        nothing_left(Store(client), token)


def never_works(url, reason, **more):
    with driving(url, **more) as driver:
        until(lambda: reason in driver.errors, lambda: f"the log says {reason!r}: {driver.errors}")
        assert driver.state()["up"] is False


def test_addresses(tmp_path):
    path = tmp_path / "redis.sock"
    with redis_with("--unixsocket", path, "--databases", "8") as server:
        works(f"redis://[::1]:{server.port}", server.client)
        works(f"unix://{path}", server.client)
        database = rig.redis.Redis(port=server.port, db=5, decode_responses=True)
        works(f"redis://127.0.0.1:{server.port}/5", database)
        works(f"unix://{path}?db=5", database)
        never_works(f"redis://127.0.0.1:{server.port}/9", "DB index is out of range")
    never_works(f"unix://{tmp_path}/gone", "No such file")
    never_works("redis://name.invalid", "cannot be resolved")


def test_a_name_with_a_dead_address_first():
    """localhost is often ::1 and 127.0.0.1; Redis listens on one of them."""
    for address in sorted({found[4][0] for found in socket.getaddrinfo("localhost", None)}):
        client = lambda part, host=address: rig.redis.Redis(host, part.port, decode_responses=True)
        with redis_with("--bind", address, client=client) as server:
            works(f"redis://localhost:{server.port}", server.client)


def test_passwords():
    client = lambda part: rig.redis.Redis(port=part.port, password="p@/ w", decode_responses=True)
    with redis_with("--requirepass", "p@/ w", client=client) as server:
        works(f"redis://:p%40%2F%20w@127.0.0.1:{server.port}", server.client)
        server.client.acl_setuser("gw", enabled=True, passwords=["+pw"], keys=["sg:{g}:*"], categories=["+@all"])
        works(f"redis://gw:pw@127.0.0.1:{server.port}", server.client)
        never_works(f"redis://:wrong@127.0.0.1:{server.port}", "WRONGPASS")
        never_works(f"redis://127.0.0.1:{server.port}", "NOAUTH")


def test_a_replica_is_not_taken_for_the_primary(server):
    with redis_with() as replica:
        token = Token(Store(replica.client))
        with driving(f"redis://127.0.0.1:{replica.port}") as driver:
            driver.until_up()
            assert driver.decide(token)["code"] == GRANTED
            replica.client.config_set("replica-read-only", "yes")
            replica.client.replicaof("127.0.0.1", server.port)
            until(lambda: replica.client.info("replication")["master_link_status"] == "up", "it replicates")
            Token(Store(server.client), kid=token.kid, ver=2)
            until(lambda: replica.client.hget(token.key, "ver") == "2", "the record is there")
            driver.until_up()
            assert driver.decide(token, 1)["code"] == UNAVAILABLE
            until(lambda: "READONLY" in driver.errors, "the log says why")
            driver.until_down()
            replica.client.replicaof("no", "one")
            driver.until_up()
            until(lambda: driver.decide(token, 2)["code"] == GRANTED, "it grants again")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority of our own, and certificates for `localhost` and for another name."""
    folder = tmp_path_factory.mktemp("tls")

    def run(*words):
        subprocess.run(["openssl", *map(str, words)], cwd=folder, check=True, capture_output=True)
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2, "-subj", "/CN=ca",
        "-keyout", "ca.key", "-out", "ca.crt")
    for name, alt in {"here": "DNS:localhost,IP:127.0.0.1", "there": "DNS:redis.example.org"}.items():
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "ext").write_text(f"subjectAltName={alt}\n")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", 2,
            "-extfile", "ext", "-out", f"{name}.crt")
    return folder


def tls_flags(folder, name):
    port = free_port()
    return port, ("--tls-port", port, "--tls-cert-file", folder / f"{name}.crt", "--tls-key-file", folder / f"{name}.key",
                  "--tls-ca-cert-file", folder / "ca.crt", "--tls-auth-clients", "no")


def test_tls(certificates):
    trust = {"SSL_CERT_FILE": str(certificates / "ca.crt")}
    port, flags = tls_flags(certificates, "here")
    with redis_with(*flags) as server:
        works(f"rediss://localhost:{port}", server.client, env=trust)
        works(f"rediss://127.0.0.1:{port}", server.client, env=trust)
        never_works(f"rediss://localhost:{port}", "redis:", env={"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": "/nonexistent"})
        never_works(f"rediss://localhost:{server.port}", "redis:", env=trust)


def test_tls_certificate_for_another_name_is_refused(certificates):
    port, flags = tls_flags(certificates, "there")
    with redis_with(*flags):
        never_works(f"rediss://localhost:{port}", "redis:", env={"SSL_CERT_FILE": str(certificates / "ca.crt")})
