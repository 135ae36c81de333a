"""Requests and answers that nobody thought of: the tables of vectors.py, broken further by chance.

Whatever comes, what reaches Datasette is well-formed, each answer belongs to the request it is given to, and nothing stays behind.
A failure names its seed; `SG_MUTATIONS=SEED:COUNT` takes another course, or more of it (COUNT answers, five times as many requests).
"""
import os
import random
import re

import pytest

from nasty import Upstream
from rig import until
from vectors import REPLIES, REQUESTS
from wire import Broken, CutOff, Wire

SEED, COUNT = (int(number) for number in os.environ.get("SG_MUTATIONS", "1:300").split(":"))

TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b"\t", b" ", b":", b";", b",", b"\x0b", b"\x80", b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"chunked", b"0x",
    b"ffffffffffffffff", b"HTTP/1.1", b"Host: b\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n", b"Connection: Host\r\n", b"Expect: 100-continue\r\n",
    b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"]


def mutated(chance, rows):
    """One row with a few changes, or the beginning of one and the end of another."""
    data = chance.choice(rows)
    if chance.random() < 0.2:
        other = chance.choice(rows)
        data = data[:chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1):]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((0, 0, 1, 1, 2, 8)))
        what = chance.random()
        if what < 0.5:
            data = data[:at] + chance.choice(TOKENS) + data[end:]
        elif what < 0.7:
            data = data[:at] + data[end:]
        elif what < 0.85:
            data = data[:end] + data[at:]
        else:
            data = data[:at] + bytes([chance.randrange(256)]) + data[end:]
    return data


def short(rows):
    return [row.data for row in rows.values() if 0 < len(row.data) < 2000]


LINE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*")
FIRST = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+ (/[\x21\x22\x24-\x7e]*) HTTP/1\.1")


class Strict(Upstream):
    """Reads what comes as strictly as one can, and numbers its answers."""

    def __init__(self):
        super().__init__()
        self.faults, self.whole = [], 0
        self.routes[None] = self.answer

    def answer(self, exchange):
        first, *lines = exchange.raw.decode("latin-1").split("\r\n")
        names = [line.partition(":")[0].lower() for line in lines]
        right = FIRST.fullmatch(first) and all(LINE.fullmatch(line) for line in lines) and names.count("host") == 1
        right = right and names.count("content-length") + names.count("transfer-encoding") <= 1 and names.count("via") == 1
        if not right:
            self.faults.append(exchange.raw)
        exchange.read()
        self.whole += 1
        exchange.reply("200 OK", f"X-Number: {self.whole}")


@pytest.mark.timeout(300)
def test_requests(shared_rig):
    upstream = Strict()
    shared_rig.add(upstream, upstream.close)
    gateway = shared_rig.gateway(datasette_url=upstream.url, token=False, workers=1)
    chance, rows, taken = random.Random(SEED), short(REQUESTS), 0
    for i in range(5 * COUNT):
        data = mutated(chance, rows)
        before, numbers = upstream.whole, []
        with Wire(gateway.port, limit=5) as wire:
            try:
                wire.send(data)
                while True:
                    while not wire.buffer and wire.silent(0.03) and len(numbers) < upstream.whole - before:
                        pass
                    if not wire.buffer and wire.silent(0):
                        break
                    answer = wire.answer(to="HEAD" if data.lstrip(b"\r\n").startswith(b"HEAD") else "GET")
                    numbers += map(int, answer.all("X-Number"))
            except (CutOff, ConnectionError):
                pass
            except (Broken, TimeoutError) as failure:
                raise AssertionError(f"{SEED}:{i}: {failure} after {data!r}") from None
        taken += len(numbers)
        assert not upstream.faults, f"{SEED}:{i}: {upstream.faults} came of {data!r}"
        assert numbers == sorted(set(numbers)) and all(number > before for number in numbers), \
            f"{SEED}:{i}: answers {numbers} to requests from {before + 1} on, after {data!r}"
    assert taken > COUNT / 10, f"only {taken} of {5 * COUNT} were taken: the mutations are too coarse"
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") == 0, "no request is under way")
    until(lambda: gateway.metrics().get("spritegate_connections") <= 1, "the connections are gone")


@pytest.mark.timeout(300)
def test_answers(shared_rig):
    upstream = shared_rig.upstream()
    upstream.routes["/next"] = lambda exchange: exchange.reply(body=b"clean")
    gateway = shared_rig.gateway(datasette_url=upstream.url, token=False, workers=1, datasette_timeout_seconds=1)
    chance, rows, whole = random.Random(SEED), short(REPLIES), 0
    for i in range(COUNT):
        data, stays = mutated(chance, rows), chance.random() < 0.3

        @upstream.on("/raw")
        def reply(exchange, data=data, stays=stays):
            exchange.send(data)
            if not stays:
                exchange.hang_up()

        with Wire(gateway.port, limit=10) as wire:
            try:
                wire.ask("GET", "/raw")
                answer = wire.answer()
                whole += answer.status < 500
                wire.ask("GET", "/next")
                assert wire.answer().body == b"clean", f"{SEED}:{i}: out of step after {data!r}"
            except CutOff:
                pass
            except (Broken, TimeoutError) as failure:
                raise AssertionError(f"{SEED}:{i}: {failure!r} after {data!r}") from None
        with Wire(gateway.port) as wire:
            wire.ask("GET", "/next")
            assert wire.answer().body == b"clean", f"{SEED}:{i}: another client gets what belongs to {data!r}"
    assert whole > COUNT / 50, f"only {whole} of {COUNT} were whole: the mutations are too coarse"
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") == 0, "no request is under way")
