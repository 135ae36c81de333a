"""DNS on the wire, as far as a Sprite's resolver needs it: one question in, its addresses out (RFC 1035).

Own code because a library for it takes as long to import as the whole emulator to start.
"""
import dataclasses
import struct

HEADER = struct.Struct("!6H")
LONGEST = 512           # of a message over UDP
MOST = 8                # addresses in an answer: with the longest name they fit
TTL = 60
A, IN = 1, 1
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME, REFUSED = 0, 2, 3, 5
RESPONSE, OPCODE, RECURSION_DESIRED, RECURSION_AVAILABLE = 0x8000, 0x7800, 0x0100, 0x0080

LETTERS = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


class BadQuery(ValueError):
    """Not a query that can be answered; bytes from a Sprite may be anything."""


@dataclasses.dataclass(frozen=True)
class Query:
    id: int
    flags: int
    question: bytes     # as it came, for the answer
    name: str           # lower case, without the last dot
    type: int

    def answer(self, code, addresses=()):
        """The bytes of an answer with a code and IPv4 addresses (packed)."""
        addresses = addresses[:MOST]
        flags = RESPONSE | RECURSION_AVAILABLE | self.flags & RECURSION_DESIRED | code
        records = b"".join(struct.pack("!HHHIH4s", 0xC000 | HEADER.size, A, IN, TTL, 4, address) for address in addresses)
        return HEADER.pack(self.id, flags, 1, len(addresses), 0, 0) + self.question + records


def parse(data):
    """The query of a datagram; what follows the question (EDNS) is not looked at."""
    if not HEADER.size < len(data) <= LONGEST:
        raise BadQuery("length")
    id, flags, questions, answers, _, _ = HEADER.unpack_from(data)
    if flags & (RESPONSE | OPCODE) or questions != 1 or answers:
        raise BadQuery("not a query with one question")
    labels, position = [], HEADER.size
    while True:
        if position >= len(data):
            raise BadQuery("name without an end")
        size = data[position]
        position += 1
        if size == 0:
            break
        label = data[position:position + size]
        if size > 63 or len(label) != size:
            raise BadQuery("label")
        labels.append(label)
        position += size
    end = position + 4
    if end > len(data) or position - HEADER.size > 255:
        raise BadQuery("question")
    type, kind = struct.unpack_from("!HH", data, position)
    if kind != IN:
        raise BadQuery("class")
    return Query(id, flags, data[HEADER.size:end], name_of(labels), type)


def name_of(labels):
    """A host name. A label with a dot or another strange byte in it must not pass for something else."""
    if not labels or not all(set(label) <= LETTERS for label in labels):
        raise BadQuery("not a host name")
    return b".".join(labels).decode().lower()
