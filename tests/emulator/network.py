"""The network of one running Sprite: its own loopback, and beyond it what its policy opens.

A Sprite's namespace has no link to this machine. Its default route is its own loopback,
where nftables hand new TCP connections to a proxy of this process and refuse all others,
and a resolver of this process answers on 127.0.0.53. The sockets of both are opened by a
thread that entered the namespace; connections to the outside are made from here. So nothing
changes in the machine's own network, and what is left to clean up is a few descriptors.

A Sprite whose policy is closed has none of that: it is made before the first command that
could use it. The decision about a connection is taken twice: by nftables, so that it is
refused as a firewall refuses, and by the proxy, which asks the policy itself.

Unlike live: IPv4 and TCP only (UDP but for the resolver is refused), and a connection that is
allowed is accepted before the far end has answered: if it does not, it is reset.
"""
import asyncio
import concurrent.futures
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time

import dns_wire
from internet import NoSuchName
from sandbox import SandboxError
from wire import cut

RESOLVER = ("127.0.0.53", 53)
ADDRESS = "10.0.0.1"
LEARNED_SECONDS = 3600      # how long an address stays open after its name was asked for
MAX_LEARNED = 1024
MAX_NAMES = 64              # of one address
MAX_CONNECTIONS = 256
MAX_QUERIES = 32
CHUNK = 65536
COMMAND_TIMEOUT = 20
SO_ORIGINAL_DST = 80

LINK = f"""link set lo up
addr replace {ADDRESS}/32 dev lo
route replace default dev lo src {ADDRESS}
"""

# Connections to the Sprite's own addresses, and what they answer, stay inside.
RULES = """table inet sprite
delete table inet sprite
table inet sprite {{
  set closed {{ type ipv4_addr; flags interval; elements = {{ {closed} }} }}
  set open {{ type ipv4_addr; flags timeout; }}
  chain allowed {{
  }}
  chain output {{
    type filter hook output priority mangle; policy drop;
    fib daddr type local accept
    ct state established,related accept
    meta l4proto tcp ip daddr != @closed jump allowed
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain proxied {{
    type nat hook output priority dstnat;
    fib daddr type local accept
    meta l4proto tcp redirect to :{port}
  }}
}}
"""


class NetworkError(SandboxError):
    """The network could not be set up; the Sprite stays without."""


def check_host():
    """Why Sprites can have no network on this machine, or None. Tried in a namespace that ends with its thread."""
    def attempt():
        try:
            os.unshare(os.CLONE_NEWNET)
            for sock in build([]):
                sock.close()
        except (OSError, NetworkError) as error:
            return str(error)
        return None

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(attempt).result()


def build(closed):
    """In the calling thread's namespace: link, rules (nothing open yet), the resolver's and the proxy's socket."""
    command("ip", "-batch", "-", input=LINK)
    with contextlib.ExitStack() as opened:
        resolver = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        resolver.bind(RESOLVER)
        proxy = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=MAX_CONNECTIONS))
        elements = ", ".join(str(network) for network in closed) or "255.255.255.255"
        command("nft", "-f", "-", input=RULES.format(closed=elements, port=proxy.getsockname()[1]))
        opened.pop_all()
    return resolver, proxy


def command(*argv, input):
    try:
        done = subprocess.run(argv, input=input, text=True, capture_output=True, timeout=COMMAND_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"{argv[0]}: {error}") from None
    if done.returncode:
        raise NetworkError(f"{argv[0]}: {done.stderr.strip()[:500]}")


class Network:
    """Of one start of a Sprite's machine; lives as long as its namespace."""

    def __init__(self, internet, init, inode, policies):
        self.internet = internet
        self.init = init            # a process in the namespace, and the namespace's number:
        self.inode = inode          # the pid alone could be another's by the time it is used
        self.policies = policies
        self.namespace = None
        self.server = None          # of the proxy
        self.resolver = None        # transport
        self.learned = {}           # address -> {name: until}, oldest first
        self.connections = {}       # writer of a client -> names its address had, None: any
        self.queries = set()
        self.lock = asyncio.Lock()  # one change of the rules at a time
        self.ended = False

    @property
    def policy(self):
        return self.policies.network

    # -- making and changing --------------------------------------------------

    async def ensure(self):
        """Before a command starts: there is a network if the policy opens any."""
        if self.resolver is None:
            await self.apply()

    async def apply(self):
        """The policy as it is now holds, for new connections and for open ones."""
        async with self.lock:
            if self.resolver is None:
                if self.policy.closed:
                    return
                await self.open()
            self.cut(lambda names: not self.is_allowed(names))
            await self.inside(command, "nft", "-f", "-", input=self.rules())

    async def open(self):
        self.check()
        if self.namespace is None:
            self.namespace = self.find_namespace()
        resolver, proxy = await self.inside(build, self.internet.closed)
        self.server = await asyncio.start_server(self.serve, sock=proxy)
        self.resolver, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Resolver(self), sock=resolver)
        if self.ended:
            self.close()        # again, for what has come since
        self.check()

    def check(self):
        if self.ended:
            raise NetworkError("the Sprite stopped")

    def find_namespace(self):
        """A descriptor of the namespace, proven to be the Sprite's."""
        try:
            namespace = os.open(f"/proc/{self.init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise NetworkError("the Sprite stopped") from None
        if os.fstat(namespace).st_ino != self.inode:
            os.close(namespace)
            raise NetworkError("the Sprite stopped")
        return namespace

    async def inside(self, function, *arguments, **named):
        """Call it in a thread that has entered the namespace, and ends."""
        self.check()
        namespace = os.dup(self.namespace)      # close() may close ours meanwhile

        def entered():
            os.setns(namespace, os.CLONE_NEWNET)
            return function(*arguments, **named)

        try:
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                return await asyncio.get_running_loop().run_in_executor(thread, entered)
        except (OSError, NetworkError) as error:
            print(f"emulator: the network of a Sprite could not be set up: {error}", file=sys.stderr, flush=True)
            raise NetworkError(str(error)) from None
        finally:
            os.close(namespace)

    def rules(self):
        """For nft: the present policy in one transaction."""
        lines = ["flush chain inet sprite allowed", "flush set inet sprite open"]
        if self.policy.unrestricted:
            lines.append("add rule inet sprite allowed meta l4proto tcp accept")
        else:
            lines.append("add rule inet sprite allowed meta l4proto tcp ip daddr @open accept")
            now = time.monotonic()
            for address, names in self.learned.items():
                left = max((until - now for name, until in names.items() if self.policy.allows(name)), default=0)
                if left >= 1:
                    lines.append(f"add element inet sprite open {{ {socket.inet_ntoa(address)} timeout {int(left)}s }}")
        return "\n".join(lines) + "\n"

    # -- names ----------------------------------------------------------------

    def ask(self, data, client):
        """A datagram for the resolver; too many at once and bytes that are no query are dropped."""
        try:
            query = dns_wire.parse(data)
        except dns_wire.BadQuery:
            return
        if len(self.queries) < MAX_QUERIES:
            task = asyncio.get_running_loop().create_task(self.answer(query, client))
            self.queries.add(task)
            task.add_done_callback(self.queries.discard)

    async def answer(self, query, client):
        code, addresses = dns_wire.REFUSED, []
        if self.policy.allows(query.name):
            try:
                addresses = await self.internet.resolve(query.name)
                code = dns_wire.NO_ERROR if await self.learn(query.name, addresses) else dns_wire.REFUSED
            except NoSuchName:
                code = dns_wire.NO_SUCH_NAME
            except (OSError, NetworkError):
                code = dns_wire.SERVER_FAILURE
        if code != dns_wire.NO_ERROR or query.type != dns_wire.A:
            addresses = []
        self.resolver.sendto(query.answer(code, addresses), client)

    async def learn(self, name, addresses):
        """Open what a name leads to, for an hour; False if the policy has changed and denies it now."""
        async with self.lock:
            if not self.policy.allows(name):
                return False
            now, fresh = time.monotonic(), False
            for address in addresses[:dns_wire.MOST]:
                if not self.internet.exists(address):
                    continue
                names = self.learned.setdefault(address, {})
                if names.get(name, 0) < now + LEARNED_SECONDS / 2:
                    names.pop(name, None)
                    names[name] = now + LEARNED_SECONDS
                    fresh = True
                drop_oldest(names, MAX_NAMES)
            drop_oldest(self.learned, MAX_LEARNED)
            if fresh and not self.policy.unrestricted:
                await self.inside(command, "nft", "-f", "-", input=self.rules())
            return True

    # -- connections ----------------------------------------------------------

    async def serve(self, reader, writer):
        """One connection of the Sprite, from its accept to its end."""
        task, ends, complete = asyncio.current_task(), [writer], False
        try:
            address, port = original_destination(writer.get_extra_info("socket"))
            now = time.monotonic()
            names = [name for name, until in self.learned.get(address, {}).items() if until > now]
            if len(self.connections) >= MAX_CONNECTIONS or not self.internet.exists(address) or not self.is_allowed(names):
                return
            self.connections[task] = names
            far_reader, far_writer = await self.internet.connect(address, port)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(pump(reader, far_writer))
                both.create_task(pump(far_reader, writer))
            complete = True
        except* OSError:
            pass        # either end failed or left: the other one sees a reset
        finally:
            self.connections.pop(task, None)
            for end in ends:
                if complete:
                    end.close()
                else:
                    cut(end.transport)

    def is_allowed(self, names):
        """Whether the policy opens an address that these names led to."""
        return self.policy.unrestricted or any(self.policy.allows(name) for name in names)

    def cut(self, chosen=lambda names: True):
        """Drop open connections: those whose names are chosen."""
        for task, names in list(self.connections.items()):
            if chosen(names):
                task.cancel()

    def close(self):
        self.ended = True
        self.cut()
        for task in self.queries:
            task.cancel()
        if self.server is not None:
            self.server.close()
        if self.resolver is not None:
            self.resolver.close()
        if self.namespace is not None:
            os.close(self.namespace)
            self.namespace = None


class Resolver(asyncio.DatagramProtocol):
    """What asyncio wants of the resolver's socket."""

    def __init__(self, network):
        self.network = network

    def datagram_received(self, data, addr):
        self.network.ask(data, addr)


async def pump(reader, writer):
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def original_destination(sock):
    """(packed address, port) that a redirected connection was made to."""
    _, port, address = struct.unpack_from("!HH4s", sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
    return address, port


def drop_oldest(entries, most):
    while len(entries) > most:
        del entries[next(iter(entries))]
