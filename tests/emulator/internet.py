"""What lies outside the Sprites: the names of --resolve, else this machine's resolver and the public internet.

Never reached: this machine itself and private networks. Only --resolve leads to loopback, and
only to the socket it names. Names of --resolve have addresses of a range kept for tests
(RFC 2544), which exist in Sprites alone.
"""
import argparse
import asyncio
import concurrent.futures
import ipaddress
import re
import socket

NAME = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?")
EVERYTHING = ipaddress.ip_network("0.0.0.0/0")
NAMED = ipaddress.ip_network("198.18.0.0/15")
# Special-purpose addresses (IANA), which are no places of the public internet.
SPECIAL = [ipaddress.ip_network(text) for text in (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3")]
RESOLVER_THREADS = 4
CONNECT_TIMEOUT = 30


class NoSuchName(Exception):
    """The name does not exist."""


def is_name(text):
    return len(text) <= 253 and NAME.fullmatch(text) is not None


def flag_resolve(text):
    """(name, (host, port)) of NAME=ADDRESS:PORT."""
    name, equals, place = text.partition("=")
    host, colon, port = place.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        equals = ""
    name = name.lower().rstrip(".")
    if not equals or not colon or not is_name(name) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"not NAME=ADDRESS:PORT: {text!r}")
    return name, (host.strip("[]"), int(port))


class Internet:
    def __init__(self, given, offline):
        self.names = {}             # name -> packed address
        self.places = {}            # packed address -> (host, port) on this machine
        for (name, place), address in zip(dict(given).items(), NAMED.hosts()):
            self.names[name] = address.packed
            self.places[address.packed] = place
        self.offline = offline
        self.closed = list(EVERYTHING.address_exclude(NAMED)) if offline else SPECIAL
        self.resolver = concurrent.futures.ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(self, name):
        """Packed IPv4 addresses of a name, maybe none; NoSuchName, or OSError if the resolver fails."""
        if name in self.names:
            return [self.names[name]]
        if self.offline:
            raise NoSuchName(name)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self.resolver, socket.getaddrinfo, name, None, socket.AF_INET, socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno == socket.EAI_NODATA:
                return []
            if error.errno == socket.EAI_NONAME:
                raise NoSuchName(name) from None
            raise
        return [socket.inet_aton(place[0]) for *_, place in found]

    def exists(self, address):
        """Whether a Sprite may be let out to a packed address, its policy apart."""
        if address in self.places:
            return True
        number = ipaddress.IPv4Address(address)
        return number not in NAMED and not any(number in network for network in self.closed) and not is_own(str(number))

    async def connect(self, address, port):
        """(reader, writer) to where an address leads; OSError or TimeoutError."""
        host, port = self.places.get(address, (socket.inet_ntoa(address), port))
        return await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_TIMEOUT)

    def close(self):
        self.resolver.shutdown(wait=False, cancel_futures=True)


def is_own(address):
    """Whether it is one of this machine's addresses: those can be bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
