"""The client of the Sprites API through a small program of our own (tests/drivers): what a gateway cannot be made to do at will."""
import contextlib
import itertools
import socket
import threading
import time

import pytest

import processes
import rig
from line_driver import LineDriver
from rig import PATIENCE, SLOWER, Emulator, until

OK, GONE, RATE_LIMIT, CAPACITY, THROTTLED, UNAUTHORIZED, UNAVAILABLE, POLICY, TAKEN, INVALID = range(10)
LOST = 2
NEVER = 4294967295
names = (f"sg-client-{number}" for number in itertools.count(1))


def pattern_sum(length):
    return sum(97 + i % 16 for i in range(length))


class Driver(LineDriver):
    def __init__(self, url, token=Emulator.TOKEN, keepalive_ms=NEVER, ping_ms=0, dead_ms=0):
        super().__init__("sprites_driver", url, token, keepalive_ms, ping_ms, dead_ms)

    def ask(self, word, name):
        self.send(word, name)
        return self.next("done")["code"]

    def prepared(self, name=None):
        name = name or next(names)
        assert self.ask("create", name) == OK
        assert self.ask("prepare", name) == OK, self.seen
        return name

    def run(self, line):
        self.send("run", line)
        return self.next("exit")

    def wake_as(self, name, parking, taker):
        self.send("take", name, parking, taker)
        return self.next("done")["code"]

    def printed(self):
        self.send("bytes")
        return self.next("bytes")["bytes"]

    def sockets(self):
        """Statuses of the handshakes so far."""
        return [line["socket"] for line in self.seen if "socket" in line]

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.send("quit")
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0, self.errors
        until(lambda: {"freed": True} in self.seen or self.lines.qsize() and self.next("freed"), "everything was freed")
        assert not self.errors, self.errors


class Between:
    """A TCP relay in front of the emulator that can refuse /control and stop relaying."""

    def __init__(self, url, answer=None):
        self.target = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.answer = answer
        self.relaying = threading.Event()
        self.relaying.set()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                threading.Thread(target=self.begin, args=(connection,), daemon=True).start()

    def begin(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        if self.answer and b"/control" in data.split(b" ")[1]:
            connection.sendall(self.answer)
            connection.close()
            return
        upstream = socket.create_connection(self.target)
        upstream.sendall(data)
        for pair in ((connection, upstream), (upstream, connection)):
            threading.Thread(target=self.relay, args=pair, daemon=True).start()

    def relay(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.relaying.wait()
                sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.relaying.set()
        self.server.close()


NO_ROUTE = b"HTTP/1.1 404 Not Found\r\nSprite-Version: v0.0.1-rc40\r\nContent-Length: 19\r\n\r\n404 page not found\n"
NO_SPRITE = b'HTTP/1.1 404 Not Found\r\nContent-Length: 28\r\n\r\n{"error":"sprite not found"}'


@pytest.fixture(scope="module")
def emulator():
    part = Emulator()
    yield part
    part.stop()


@pytest.fixture(autouse=True)
def no_faults(emulator):
    yield
    emulator.view.clear_faults()


@pytest.fixture
def start(emulator):
    """Drivers that must end in order."""
    drivers = []

    def start_one(url=None, **more):
        drivers.append(Driver(url or emulator.url, **more))
        return drivers[-1]
    yield start_one
    for driver in drivers:
        driver.end()


@pytest.fixture
def between(emulator):
    relays = []

    def make(answer=None, url=None):
        relays.append(Between(url or emulator.url, answer))
        return relays[-1]
    yield make
    for relay in relays:
        relay.close()


CHANNELS = pytest.mark.parametrize("answer", [None, NO_ROUTE], ids=["control", "exec"])


@CHANNELS
def test_commands(start, between, answer):
    """One after another, with their output, input and status."""
    driver = start(between(answer).url)
    driver.prepared()
    for code in (0, 3, 255):
        end = driver.run(f"echo hello; echo oops >&2; exit {code}")
        assert (end["exit"], end["head"], end["stdout_bytes"], end["stderr_bytes"]) == (code, "hello\n", 6, 5)
    assert driver.run("cat; echo end")["head"] == "end\n"
    driver.send("input", 3_000_000)
    end = driver.run("cat")
    assert (end["exit"], end["stdout_bytes"], end["sum"]) == (0, 3_000_000, pattern_sum(3_000_000))
    assert driver.run("exit 9")["exit"] == 9    # without reading its input
    assert (driver.sockets()[0], set(driver.sockets()[1:])) == ((101, set()) if answer is None else (404, {101}))


@CHANNELS
def test_back_pressure(start, between, emulator, answer):
    """A slow reader slows the command; nothing is lost and nothing is hoarded."""
    driver = start(between(answer).url)
    driver.prepared()
    driver.send("slow")
    end = driver.run("head -c 8000000 /dev/zero | tr '\\0' x")
    assert (end["exit"], end["stdout_bytes"], end["sum"]) == (0, 8_000_000, 8_000_000 * ord("x"))


@CHANNELS
@pytest.mark.parametrize(("signal", "code"), [("TERM", 143), ("KILL", 137)])
@pytest.mark.parametrize("length", [0, 5_000_000], ids=["no input", "input that nobody reads"])
def test_signals(start, between, answer, signal, code, length):
    driver = start(between(answer).url)
    driver.prepared()
    driver.send("input", length)
    mark = f"98{next(rig.numbers):05d}"
    driver.send("run", f"echo; exec sleep {mark}")
    until(lambda: processes.running(mark), "the command runs")
    # Before its session is known a signal has to wait behind the input; output comes after that.
    until(driver.printed, "something was printed")
    driver.send("signal", signal)
    assert driver.next("exit")["exit"] == code
    assert not processes.running(mark)
    driver.send("input", 0)
    assert driver.run("exit 4")["exit"] == 4


def test_no_control_socket_only_if_the_sprite_says_so(start, between):
    """A 404 of the API in front of the Sprite may be false: it is asked again before commands go elsewhere."""
    driver = start(between(NO_SPRITE).url)
    driver.prepared()
    assert driver.run("exit 5")["exit"] == 5
    assert driver.sockets().count(404) == 3


def test_false_404s_while_preparing(start, emulator):
    driver = start()
    name = next(names)
    assert driver.ask("create", name) == OK
    emulator.view.fault("false_404", count=4)
    assert driver.ask("prepare", name) == OK
    assert driver.run("exit 6")["exit"] == 6


def test_what_does_not_exist(start):
    driver = start()
    assert driver.ask("prepare", "sg-client-none") == GONE
    assert driver.ask("destroy", "sg-client-none") == GONE


def test_created_listed_destroyed(start, emulator):
    driver = start()
    made = ["sg-many-" + str(number) for number in range(60)]
    for name in made:
        emulator.view.create(name)
    assert driver.ask("create", made[0]) == OK  # exists already
    assert driver.ask("list", "sg-many-") == OK
    assert sorted(line["found"] for line in driver.seen if "found" in line) == sorted(made)
    for name in made:
        assert driver.ask("destroy", name) == OK
    assert driver.ask("destroy", made[0]) == GONE


def test_wrong_token(start):
    driver = start(token="wrong")
    for word in ("create", "prepare", "destroy", "list"):
        assert driver.ask(word, "sg-x") == UNAUTHORIZED


def test_nobody_there(start):
    driver = start("http://127.0.0.1:1")
    for word in ("create", "destroy", "list"):
        assert driver.ask(word, "sg-x") == UNAVAILABLE


@pytest.fixture
def drowsy():
    """An emulator where Sprites pause soon, an idle control socket or not."""
    part = Emulator("--idle-pause", f"{1 + SLOWER}s", "--control-idle-holds", "false")
    yield part
    part.stop()


@CHANNELS
def test_keepalive_holds_a_sprite_awake(drowsy, start, between, answer):
    """Where an idle socket does not, the small commands do; where they stop, the loss is told."""
    url = between(answer, drowsy.url).url
    held, left = start(url, keepalive_ms=300), start(url)
    held.prepared()
    left.prepared()
    if answer is None:
        left.next("lost", seconds=PATIENCE)
        left.send("run", "true")
        assert left.next("result")["result"] == LOST
    else:
        time.sleep(2 + SLOWER)
    assert held.run("exit 7")["exit"] == 7
    assert not [line for line in held.seen if "lost" in line]


def test_command_in_the_middle_of_keepalives(start):
    """However the two meet, commands are not refused."""
    driver = start(keepalive_ms=1)
    driver.prepared()
    for number in range(100):
        driver.send("true")
        assert driver.next("exit")["exit"] == 0, number


def test_silent_network(start, between):
    """A peer of which nothing is heard is dead, and the command may have run."""
    relay = between()
    driver = start(relay.url, ping_ms=50 * SLOWER, dead_ms=500 * SLOWER)
    driver.prepared()
    driver.send("run", "sleep 60")
    time.sleep(1.5 * SLOWER)        # pings alone keep it
    driver.send("bytes")
    driver.next("bytes")
    assert not [line for line in driver.seen if "exit" in line]
    relay.relaying.clear()
    end = driver.next("exit")
    assert (end["exit"], end["doubt"]) == (None, "may_have_run")
    assert "nothing was heard" in end["reason"]


@CHANNELS
@pytest.mark.parametrize(("fault", "more", "doubt", "printed"), [
    ("cut_before_start", {}, "may_have_run", 0), ("cut_after_start", {}, "may_have_run", 0),
    ("cut_before_output", {}, "may_have_run", 0), ("cut_after_output", {}, "may_have_run", 6),
    ("cut_before_exit", {}, "may_have_run", 6), ("no_exit_code", {}, "may_have_run", 6),
    ("kill_vm", {"delay_ms": 500}, "may_have_run", 6), ("pause_under_socket", {"delay_ms": 500}, "may_have_run", 6),
    ("duplicate_exit", {"code": 0}, None, 6), ("slow_drip", {"bytes": 1}, None, 6), ("clock_skew", {}, None, 6)])
def test_faults(start, between, emulator, answer, fault, more, doubt, printed):
    driver = start(between(answer).url)
    driver.prepared()
    emulator.view.fault(fault, **more)
    end = driver.run("echo hello; sleep 1; exit 3")
    assert (end["exit"], end["doubt"]) == ((3, None) if doubt is None else (None, doubt))
    assert end["stdout_bytes"] == printed
    emulator.view.clear_faults()
    if doubt:
        driver.send("run", "true")
        assert driver.next("result")["result"] == LOST
    else:
        assert driver.run("exit 8")["exit"] == 8


def test_refused_exec_was_not_started(start, between, emulator):
    driver = start(between(NO_ROUTE).url)
    driver.prepared()
    emulator.view.fault("starting_503")
    end = driver.run("true")
    assert (end["exit"], end["doubt"]) == (None, "not_started")


def test_of_two_takers_the_first_one_has_it(start):
    """And who comes with a parking that is over, though nobody woke it after that one."""
    first, second = start(), start()
    name = first.prepared()
    assert first.wake_as(name, 1700, "abc") == OK
    assert first.wake_as(name, 1700, "abc") == OK, "once more after a lost answer"
    assert [second.wake_as(name, 1700, "abd"), second.wake_as(name, 1699, "abd")] == [TAKEN, TAKEN]
    assert first.run("echo mine")["head"] == "mine\n"
    first.send("close")
    assert second.wake_as(name, 1800, "abd") == OK, "it was parked again since"
    assert first.wake_as(name, 1700, "abc") == TAKEN


def test_a_command_cannot_hide_that_its_sprite_was_taken(start, emulator):
    """What it removes is not all that tells."""
    first, second = start(), start()
    name = first.prepared()
    assert first.wake_as(name, 1700, "abc") == OK
    assert first.run("rm -r ~/.spritegate-taken && echo removed")["head"] == "removed\n"
    assert [second.wake_as(name, 1700, "abd"), second.wake_as(name, 1699, "abd")] == [TAKEN, TAKEN]
    [labels] = [sprite["labels"] for sprite in emulator.view.state()["sprites"] if sprite["name"] == name]
    assert labels == ["spritegate", "taken=00000000000006a4-0000000000000abc"]
    assert second.wake_as(name, 1800, "abd") == OK, "it was parked again since"
