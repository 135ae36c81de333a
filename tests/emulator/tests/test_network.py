"""The network of a Sprite: what its policy opens is reached, all else is not, and nothing of it is left behind."""
import asyncio
import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import pathlib
import random
import shutil
import socket
import socketserver
import subprocess
import threading
import time

import pytest

import dns_wire
import internet
from emulator_client import Emulator, until
from network import Network
from policy import NetworkPolicy

SIOCGSKNS = 0x894C
PIDFD_GETFD = 438
DENY_ALL = [{"domain": "*", "action": "deny"}]

# Inside a Sprite: what a connection to each HOST:PORT says first, or how it fails.
VISIT = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as s:
            print(s.recv(99).decode().strip() or "closed")
    except socket.gaierror: print("unresolved")
    except ConnectionRefusedError: print("refused")
    except OSError as error: print(type(error).__name__)
"""

# Says "open" once connected, then what ends the connection.
STAY = """
import socket, sys
with socket.create_connection((sys.argv[1], 80), 5) as s:
    s.settimeout(30)
    s.recv(99)
    print("open", flush=True)
    try: print("got", s.recv(99), flush=True)
    except OSError as error: print(type(error).__name__, flush=True)
"""

# The code of a resolver's answer and its addresses, for each NAME/TYPE.
ASK = """
import socket, struct, sys
for question in sys.argv[1:]:
    name, kind = question.split("/")
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect(("127.0.0.53", 53))
        s.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!2H", int(kind), 1))
        answer = s.recv(512)
    id, flags, _, count, _, _ = struct.unpack_from("!6H", answer)
    assert id == 7 and flags & 0x8180 == 0x8180
    print(flags & 15, *(socket.inet_ntoa(answer[-4 - 16 * i:][:4]) for i in range(count)))
"""


class Greeter(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"hello\n")
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512


@contextlib.contextmanager
def greeter(host="127.0.0.1", port=0):
    """A server of this machine; its port."""
    with Server((host, port), Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def world():
    """An emulator outside of whose Sprites a few names exist; a.test is the first, so 198.18.0.1."""
    with greeter() as port, socket.create_server(("127.0.0.1", 0)) as silent:
        nowhere = silent.getsockname()[1]
        silent.close()
        names = [f"{name}=127.0.0.1:{port}" for name in ("a.test", "b.test", "x.wild.test", "y.x.wild.test", "wild.test", "pypi.org")]
        flags = [word for name in [*names, f"dead.test=127.0.0.1:{nowhere}"] for word in ("--resolve", name)]
        with Emulator(*flags) as emulator:
            yield emulator


def allow(*domains):
    return [{"domain": domain, "action": "allow"} for domain in domains]


async def set_rules(client, name, rules):
    answer = await client.call("POST", f"/v1/sprites/{name}/policy/network", json={"rules": rules})
    assert answer.status == 204, answer.text


async def sprite(client, rules):
    name = await client.create()
    await set_rules(client, name, rules)
    return name


async def visit(client, name, *places):
    result = await client.run(name, "python3", "-c", VISIT, *places)
    assert result.code == 0, result.err
    return result.out.split()


async def ask(client, name, *questions):
    result = await client.run(name, "python3", "-c", ASK, *questions)
    assert result.code == 0, result.err
    return result.out.splitlines()


# -- names ---------------------------------------------------------------------

@pytest.mark.parametrize("rules, reached, unresolved", [
    ([], ["a.test", "b.test", "x.wild.test"], ["unknown.test"]),
    (allow("a.test"), ["a.test", "A.TEST", "a.test."], ["b.test", "x.a.test", "unknown.test"]),
    (allow("*.wild.test"), ["x.wild.test", "y.x.wild.test"], ["wild.test", "a.test"]),
    ([*allow("*"), {"domain": "b.test", "action": "deny"}], ["a.test", "wild.test"], ["b.test", "unknown.test"]),
    ([{"domain": "*.wild.test", "action": "deny"}, *allow("x.wild.test", "*")], ["x.wild.test", "a.test"], ["y.x.wild.test"]),
    ([{"include": "defaults"}], ["pypi.org"], ["a.test"]),
    (DENY_ALL, [], ["a.test", "pypi.org"]),
])
async def test_which_names_are_reached(world, rules, reached, unresolved):
    async with world.client() as client:
        name = await sprite(client, rules)
        assert await visit(client, name, *(f"{host}:80" for host in reached + unresolved)) == \
            ["hello"] * len(reached) + ["unresolved"] * len(unresolved)


async def test_a_new_sprite_is_unrestricted(world):
    async with world.client() as client:
        assert await visit(client, await client.create(), "a.test:80", "a.test:443", "198.18.0.1:80") == ["hello"] * 3
        places = ["1.1.1.1:80", "10.2.3.4:80", "198.19.0.1:80"]
        assert await visit(client, await client.create(), *places) == ["refused", "refused", "ConnectionResetError"]


async def test_what_the_resolver_says(world):
    async with world.client() as client:
        name = await sprite(client, allow("a.test", "unknown.test"))
        assert await ask(client, name, "a.test/1", "A.Test/1", "a.test/28", "b.test/1", "b.test/28", "unknown.test/1", "denied.test/1") == \
            ["0 198.18.0.1", "0 198.18.0.1", "0", "5", "5", "3", "5"]


async def test_strange_datagrams_do_not_stop_the_resolver(world):
    async with world.client() as client:
        name = await sprite(client, allow("a.test"))
        script = ("import os, random, socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.connect(('127.0.0.53', 53))\n"
                  "for i in range(500): s.send(os.urandom(random.randrange(600)))\n")
        assert (await client.run(name, "python3", "-c", script)).code == 0
        assert await visit(client, name, "a.test:80") == ["hello"]


# -- addresses -----------------------------------------------------------------

async def test_an_address_opens_only_when_an_allowed_name_leads_to_it(world):
    async with world.client() as client:
        name = await sprite(client, allow("a.test"))
        assert await visit(client, name, "198.18.0.1:80", "198.18.0.2:80", "1.1.1.1:80") == ["refused"] * 3
        assert await ask(client, name, "a.test/1", "b.test/1") == ["0 198.18.0.1", "5"]
        assert await visit(client, name, "198.18.0.1:80", "198.18.0.2:80", "198.18.0.99:80") == ["hello", "refused", "refused"]


def own_addresses():
    links = json.loads(subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True).stdout)
    return [address["local"] for link in links for address in link["addr_info"]]


@pytest.mark.parametrize("rules", [[], allow("*"), DENY_ALL])
async def test_this_machine_is_never_reached(rules):
    """Whatever the policy, and with the machine's own resolver and internet."""
    with greeter("0.0.0.0") as port, Emulator() as emulator:
        emulator_port = emulator.url.rpartition(":")[2]
        flags = [flag for flag in emulator.flags if flag != "--offline"]
        with Emulator(*flags, quick=False) as online:
            for each in (emulator, online):
                async with each.client() as client:
                    name = await sprite(client, rules)
                    own = [address for address in own_addresses() if not address.startswith("127.")]
                    places = [f"{host}:{port}" for host in ("localhost", "127.0.0.1", "127.0.0.53", "0.0.0.0", "::1", "10.0.0.1", *own)]
                    places += [f"127.0.0.1:{emulator_port}", f"localhost:{online.url.rpartition(':')[2]}"]
                    assert set(await visit(client, name, *places)) <= {"refused", "OSError", "ConnectionResetError"}


async def test_the_proxys_own_port_leads_nowhere(world):
    async with world.client() as client, contextlib.AsyncExitStack() as stack:
        for left in reversed(range(5)):
            name = await client.create()
            listening = (await client.run(name, "cat", "/proc/net/tcp")).out.splitlines()[1].split()
            assert listening[3] == "0A"
            port = int(listening[1].partition(":")[2], 16)
            try:
                stack.enter_context(greeter(port=port))
                break
            except OSError:     # somebody on this machine has that port
                if not left:
                    raise
        assert await visit(client, name, f"127.0.0.1:{port}", f"10.0.0.1:{port}") == ["ConnectionResetError", "refused"]


@pytest.mark.parametrize("address, may", [
    ("127.0.0.1", False), ("127.200.1.2", False), ("10.1.2.3", False), ("172.31.0.1", False), ("192.168.1.1", False),
    ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False),
    ("198.18.0.1", True), ("198.18.0.2", False), ("198.19.255.255", False), ("1.1.1.1", True), ("172.32.0.1", True)])
def test_which_addresses_exist_for_sprites(address, may):
    outside = internet.Internet([("a.test", ("127.0.0.1", 1))], offline=False)
    assert outside.exists(socket.inet_aton(address)) is may
    offline = internet.Internet([("a.test", ("127.0.0.1", 1))], offline=True)
    assert offline.exists(socket.inet_aton(address)) is (address == "198.18.0.1")


def test_own_addresses_are_known():
    assert all(internet.is_own(address) for address in ["127.3.2.1", *own_addresses()])
    assert not internet.is_own("1.1.1.1")


def test_own_addresses_do_not_exist_for_sprites(monkeypatch):
    """Also those that are public."""
    outside = internet.Internet([], offline=False)
    assert outside.exists(socket.inet_aton("1.1.1.1"))
    monkeypatch.setattr(internet, "is_own", lambda address: address == "1.1.1.1")
    assert not outside.exists(socket.inet_aton("1.1.1.1")) and outside.exists(socket.inet_aton("1.1.1.2"))


def test_all_special_addresses_are_closed():
    """Judged by another list of them than ours."""
    outside = internet.Internet([], offline=False)
    numbers = random.Random(1)
    for _ in range(20000):
        address = ipaddress.IPv4Address(numbers.getrandbits(32))
        assert address.is_global or not outside.exists(address.packed), address


async def test_only_tcp_leaves(world):
    async with world.client() as client:
        name = await sprite(client, [])
        script = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                  "try: s.sendto(b'x', ('198.18.0.1', 80)); print('sent')\nexcept OSError: print('refused')\n"
                  "try: socket.create_connection(('2001:db8::1', 80), 5); print('reached')\nexcept OSError: print('refused')\n")
        assert (await client.run(name, "python3", "-c", script)).out == "refused\nrefused\n"


async def test_its_own_loopback_goes_on(world):
    async with world.client() as client:
        name = await sprite(client, allow("a.test"))
        script = ("import socket\n"
                  "for host in ('127.0.0.1', '127.0.0.9', '::1', '10.0.0.1'):\n"
                  "    s = socket.create_server((host, 8080), family=socket.AF_INET6 if ':' in host else socket.AF_INET)\n"
                  "    c = socket.create_connection((host, 8080), 5); s.accept()[0].send(b'ok'); print(c.recv(9).decode()); s.close()\n")
        assert (await client.run(name, "python3", "-c", script)).out == "ok\n" * 4
        assert await visit(client, name, "127.0.0.1:80") == ["refused"]


# -- connections ---------------------------------------------------------------

async def test_bytes_pass_unchanged_in_both_directions(world):
    async with world.client() as client:
        name = await sprite(client, allow("a.test"))
        script = ("import hashlib, os, socket, threading\ns = socket.create_connection(('a.test', 80), 5)\ndata = os.urandom(3 << 20)\n"
                  "assert s.recv(6, socket.MSG_WAITALL) == b'hello\\n'\n"
                  "def send():\n    s.sendall(data); s.shutdown(socket.SHUT_WR)\n"
                  "threading.Thread(target=send).start()\ngot = b''\n"
                  "while piece := s.recv(65536): got += piece\nprint(got == data)\n")
        assert (await client.run(name, "python3", "-c", script)).out == "True\n"


async def test_a_far_end_that_refuses(world):
    async with world.client() as client:
        assert await visit(client, await client.create(), "dead.test:80") == ["ConnectionResetError"]


async def test_too_many_connections_are_refused_and_the_others_go_on(world):
    async with world.client() as client:
        name = await sprite(client, allow("a.test"))
        script = ("import socket\nopen = []\nended = 0\nfor i in range(300):\n"
                  "    try:\n        open.append(socket.create_connection(('a.test', 80), 10)); ended += not open[-1].recv(6)\n"
                  "    except OSError: ended += 1\n"
                  "open[0].send(b'echo'); print(ended, open[0].recv(9))\n")
        result = await client.run(name, "python3", "-c", script)
        assert result.out == "44 b'echo'\n", result.err
        assert await visit(client, name, "a.test:80") == ["hello"]


# -- changes -------------------------------------------------------------------

@pytest.mark.parametrize("first", [[], allow("a.test", "b.test")])
async def test_a_change_acts_on_new_connections_and_open_ones(world, first):
    async with world.client() as client:
        name = await sprite(client, first)
        async with client.exec(name, "python3", "-c", STAY, "a.test") as kept, client.exec(name, "python3", "-c", STAY, "b.test") as cut:
            await kept.until_output(b"open")
            await cut.until_output(b"open")
            await set_rules(client, name, allow("a.test", "x.wild.test"))
            assert (await cut.result()).out == "ConnectionResetError\n"
            assert await visit(client, name, "a.test:80", "b.test:80", "198.18.0.2:80", "x.wild.test:80") == \
                ["hello", "unresolved", "refused", "hello"]
            await set_rules(client, name, DENY_ALL)
            assert (await kept.result()).out == "ConnectionResetError\n"
            assert await visit(client, name, "a.test:80", "198.18.0.1:80") == ["unresolved", "refused"]
        await set_rules(client, name, [])
        assert await visit(client, name, "b.test:80", "198.18.0.1:80") == ["hello", "hello"]


async def test_the_policy_outlives_the_machine(world):
    async with world.client() as client:
        name = await sprite(client, allow("a.test"))
        assert await visit(client, name, "a.test:80") == ["hello"]
        await client.fault("kill_vm", match={"sprite": name}, count=1, delay_ms=0)
        await client.run(name, "sleep", "5")
        await client.until_status(name, "cold")
        await client.clear_faults()
        assert await visit(client, name, "198.18.0.1:80", "b.test:80", "a.test:80") == ["refused", "unresolved", "hello"]


async def test_a_pause_cuts_connections(world):
    async with world.client() as client:
        name = await client.create()
        line = "python3 -c \"$0\" a.test > ~/said 2>&1 & until grep open ~/said; do sleep 0.01; done"
        assert (await client.run(name, "bash", "-c", line, STAY)).code == 0
        await client.pause(name)

        async def told():
            return (await client.run(name, "cat", "said")).out == "open\nConnectionResetError\n"

        await until(told)


async def test_a_sprite_cannot_change_its_network(world):
    async with world.client() as client:
        name = await sprite(client, allow("a.test"))
        for line in ("nft flush ruleset", "nft list ruleset", "ip link set lo down", "ip address add 10.9.9.9/32 dev lo",
                     "unshare --user --map-root-user nft flush ruleset"):
            assert (await client.shell(name, line)).code != 0, line
        assert await visit(client, name, "198.18.0.2:80", "a.test:80") == ["refused", "hello"]


# -- what it costs and leaves --------------------------------------------------

async def test_a_closed_sprite_has_nothing_at_all():
    with Emulator() as emulator:
        async with emulator.client() as client:
            name = await sprite(client, DENY_ALL)
            async with client.control(name) as control:
                before = held(emulator)
                assert (await control.run("true")).code == 0
                seen = (await control.run("sh", "-c", "tail -n +2 -q /proc/net/route /proc/net/udp /proc/net/tcp")).out
                assert (seen, namespaces(emulator)) == ("", own_namespace())
                assert held(emulator) == before


async def test_nothing_is_left_after_a_sprite():
    with greeter() as port, Emulator("--resolve", f"a.test=127.0.0.1:{port}") as emulator:
        async with emulator.client() as client:
            keeper = await sprite(client, DENY_ALL)
            await client.run(keeper, "true")
            before = held(emulator)

            async def alone():
                return namespaces(emulator) == own_namespace()

            for end in ("delete", "kill_vm"):
                name = await sprite(client, allow("a.test"))
                async with client.exec(name, "python3", "-c", STAY, "a.test") as staying:
                    await staying.until_output(b"open")
                    assert len(namespaces(emulator)) == 2 and held(emulator)[0] > before[0]
                    if end == "kill_vm":
                        await client.fault("kill_vm", match={"sprite": name}, count=1, delay_ms=0)
                        await client.run(name, "sleep", "5")
                        await client.clear_faults()
                        await client.until_status(name, "cold")
                        await until(alone)
                    assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204

                async def same():
                    return await alone() and held(emulator) == before

                await until(same)


async def test_nothing_is_left_after_an_end_in_the_middle():
    """Of setting up, of a change, of names being asked for."""
    with greeter() as port, Emulator("--resolve", f"a.test=127.0.0.1:{port}") as emulator:
        async with emulator.client() as client:
            await client.run(await sprite(client, DENY_ALL), "true")
            threads = held(emulator)[1]

            async def life(delay):
                name = await sprite(client, DENY_ALL)
                changing = asyncio.ensure_future(client.call("POST", f"/v1/sprites/{name}/policy/network", json={"rules": allow("a.test")}))
                await asyncio.sleep(delay)
                running = asyncio.ensure_future(client.run(name, "sh", "-c", "while :; do getent hosts a.test; done"))
                await asyncio.sleep(delay)
                assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204
                await asyncio.gather(changing, running, return_exceptions=True)

            await asyncio.gather(*(life(0.01 * n) for n in range(12)))

            async def alone():
                return namespaces(emulator) == own_namespace() and held(emulator)[2] == 1

            await until(alone)
            assert held(emulator)[1] <= threads + 6     # the event loop's own, which stay


def held(emulator):
    """How many descriptors, threads and children the emulator has."""
    process = pathlib.Path(f"/proc/{emulator.process.pid}")
    return (len(os.listdir(process / "fd")), len(os.listdir(process / "task")),
            len((process / f"task/{emulator.process.pid}/children").read_text().split()))


def namespaces(emulator):
    """Network namespaces in which the emulator has a socket, a thread or a descriptor."""
    pid = emulator.process.pid
    found = {os.stat(f"/proc/{pid}/task/{task}/ns/net").st_ino for task in os.listdir(f"/proc/{pid}/task")}
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    for number in os.listdir(f"/proc/{pid}/fd"):
        copy = libc.syscall(PIDFD_GETFD, process, int(number), 0)
        if copy < 0:
            continue        # closed meanwhile
        try:
            link = os.readlink(f"/proc/self/fd/{copy}")
            if link.startswith("net:["):
                found.add(os.fstat(copy).st_ino)
            elif link.startswith("socket:"):
                namespace = fcntl.ioctl(copy, SIOCGSKNS)
                found.add(os.fstat(namespace).st_ino)
                os.close(namespace)
        finally:
            os.close(copy)
    os.close(process)
    return found


def own_namespace():
    return {os.stat("/proc/self/ns/net").st_ino}


def test_the_machines_own_network_is_not_touched(world):
    """Runs last in this file: what the tests before may have left would be seen."""
    def nft():
        return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout

    assert "sprite" not in nft()
    assert "10.0.0.1/32" not in subprocess.run(["ip", "address", "show", "lo"], capture_output=True, text=True, check=True).stdout


async def test_without_nft_every_sprite_stays_closed_and_the_emulator_says_so(tmp_path, monkeypatch, capfd):
    for program in ("bwrap", "setpriv", "ip"):
        (tmp_path / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("PATH", str(tmp_path))
    with greeter() as port, Emulator("--resolve", f"a.test=127.0.0.1:{port}") as emulator:
        assert "no Sprite has a network" in capfd.readouterr().err
        async with emulator.client() as client:
            name = await sprite(client, allow("a.test"))
            assert await visit(client, name, "a.test:80", "198.18.0.1:80") == ["unresolved", "OSError"]


# -- without a Sprite ------------------------------------------------------------

@pytest.mark.parametrize("answer, expected", [
    (["192.0.2.1", "192.0.2.2"], [b"\xc0\0\2\1", b"\xc0\0\2\2"]), (socket.EAI_NODATA, []),
    (socket.EAI_NONAME, internet.NoSuchName), (socket.EAI_AGAIN, OSError), (socket.EAI_FAIL, OSError)])
async def test_what_this_machines_resolver_says(monkeypatch, answer, expected):
    def getaddrinfo(host, port, family, type):
        assert (host, family) == ("x.test", socket.AF_INET)
        if isinstance(answer, int):
            raise socket.gaierror(answer, "no")
        return [(family, type, 6, "", (address, 0)) for address in answer]

    outside = internet.Internet([("a.test", ("127.0.0.1", 1))], offline=False)
    monkeypatch.setattr(internet.socket, "getaddrinfo", getaddrinfo)
    try:
        if isinstance(expected, list):
            assert await outside.resolve("x.test") == expected
        else:
            with pytest.raises(expected):
                await outside.resolve("x.test")
        assert await outside.resolve("a.test") == [socket.inet_aton("198.18.0.1")]
    finally:
        outside.close()


async def test_an_address_without_a_name_is_connected_as_it_is():
    outside = internet.Internet([], offline=False)
    with greeter() as port:
        reader, writer = await outside.connect(socket.inet_aton("127.0.0.1"), port)
        assert await reader.readline() == b"hello\n"
        writer.close()
    outside.close()


def test_learned_addresses_close_again():
    """After their time, and when no allowed name leads to them any more."""
    class Policies:
        network = NetworkPolicy(allow("a.test", "b.test"))

    network = Network(None, 1, 1, Policies)
    now = time.monotonic()
    network.learned = {b"\1\1\1\1": {"a.test": now + 100.5}, b"\1\1\1\2": {"a.test": now - 1}, b"\1\1\1\3": {"denied.test": now + 100},
                       b"\1\1\1\4": {"denied.test": now + 100, "a.test": now + 50.5, "b.test": now + 70.5}}
    assert [line for line in network.rules().splitlines() if "element" in line] == [
        "add element inet sprite open { 1.1.1.1 timeout 100s }", "add element inet sprite open { 1.1.1.4 timeout 70s }"]
    Policies.network = NetworkPolicy([])
    assert "element" not in network.rules() and "add rule inet sprite allowed meta l4proto tcp accept" in network.rules()


# -- DNS on the wire -------------------------------------------------------------

def question(name=b"\1a\4test\0", flags=0x100, count=1, kind=1, more=b""):
    return dns_wire.HEADER.pack(7, flags, count, 0, 0, 0) + name + kind.to_bytes(2) + b"\0\1" + more


def test_a_query_and_its_answer():
    query = dns_wire.parse(question(b"\1A\4tesT\0", more=b"what follows"))
    assert (query.name, query.type, query.id) == ("a.test", 1, 7)
    answer = query.answer(dns_wire.NO_ERROR, [b"\1\2\3\4"] * 20)
    assert answer[:18] == dns_wire.HEADER.pack(7, 0x8180, 1, 8, 0, 0) + b"\1A\4tes" and answer.endswith(b"\0\4\1\2\3\4")
    longest = dns_wire.parse(question(b"".join(b"\77" + b"a" * 63 for _ in range(3)) + b"\75" + b"a" * 61 + b"\0"))
    assert len(longest.answer(0, [b"\1\2\3\4"] * 20)) <= dns_wire.LONGEST


@pytest.mark.parametrize("data", [
    b"", b"\0" * 12, question()[:-1], question()[:-4], question(flags=0x8100), question(flags=0x0900), question(count=0), question(count=2),
    question(b"\0"), question(b"\xc0\x0c"), question(b"\1a\100" + b"b" * 64 + b"\0"), question(b"\3a.b\0"), question(b"\1\0\1a\0"),
    question(b"\1\xe9\0"), question(b"\2a", more=b"")[:14], question(more=b"x" * 600), question(b"\1a" * 127 + b"\1a\0"),
    question()[:-1] + b"\3"])
def test_what_is_not_a_query(data):
    with pytest.raises(dns_wire.BadQuery):
        dns_wire.parse(data)
