"""Two Datasettes that are alike: one is asked directly, the other one through a gateway, and the answers are compared."""
import pathlib
import re
import shutil
import sqlite3
import sys

import rig as rigs
from wire import CutOff, Wire

sys.path.append(str(rigs.TOP / "tests/fixtures"))
import sample  # noqa: E402

HOST = "sample.example:8443"

AWKWARD = """
create table [a/b.c~d%25 é'"[x] (id integer primary key, [sp ace] text, [per%cent] text, [til~de] text);
insert into [a/b.c~d%25 é'"[x] values (1, 'one', '%41', '~41'), (2, 'two', '+', '~');
create table [%2f] ([k/e.y] text primary key, v text);
insert into [%2f] values ('a/b', 'slash'), ('..', 'dots'), ('a,b', 'comma'), ('%2F', 'percent'), ('', 'empty'), ('é ü', 'blank'), ('?#;&=', 'marks');
create table many (id integer primary key, [group] text, amount real, note text);
create table wide (id integer primary key, {columns});
insert into wide (id) values (1);
"""


def awkward(path):
    db = sqlite3.connect(path)
    with db:
        db.executescript(AWKWARD.replace("{columns}", ", ".join(f"column_{i} text default 'x'" for i in range(120))))
        db.executemany("insert into many values (?, ?, ?, ?)",
                       ((i, f"g{i % 7}", i / 3, "line\n\"quoted\", and, commas" if i % 1000 == 0 else f"note {i}") for i in range(1, 30_001)))
    db.close()


def frozen(path):
    db = sqlite3.connect(path)
    with db:
        db.executescript("create table facts (id integer primary key, fact text); insert into facts values (1, 'it does not change')")
    db.close()


# What Datasette leaves out of a page when the machine is slow: one of two would, and the other not.
PATIENT = [word for name in ("sql_time_limit_ms", "facet_time_limit_ms", "facet_suggest_time_limit_ms") for word in ("--setting", name, "60000")]


class Datasette(rigs.Part):
    """A real one, with databases and a plugin of its own."""

    def __init__(self, folder, *options, env=None):
        folder.mkdir(parents=True)
        writable = sample.make(folder)
        awkward(folder / "odd.db")
        frozen(folder / "frozen.db")
        (folder / "assets").mkdir()
        (folder / "assets/data.bin").write_bytes(bytes(range(256)) * 1000)
        (folder / "assets/empty.txt").touch()
        (folder / "assets/page é.html").write_text("<h1>a blank in the name</h1>")
        port = rigs.free_port()
        super().__init__("datasette", [
            *rigs.DATASETTE, "serve", *writable, folder / "odd.db", "-i", folder / "frozen.db", "--cors", "--root",
            "--plugins-dir", pathlib.Path(__file__).parent / "datasette_plugins", "--static", f"assets:{folder / 'assets'}",
            "-c", rigs.TOP / "tests/fixtures/datasette.yml", "--secret", sample.SECRET, "-h", "127.0.0.1", "-p", port, *PATIENT, *options],
            env, folder)
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def answers(self):
        try:
            with Wire(self.port) as wire:
                wire.ask("GET", "/-/versions.json")
                return wire.answer().status == 200
        except (OSError, CutOff):
            return False


class Twins:
    """`options` are of both Datasettes; `direct` and `through` are ports; gateways with other settings stand before the second Datasette as well."""

    def __init__(self, rig, *options):
        self.folder = rigs.LOGS / f"twins-{next(rigs.numbers)}"
        self.folder.mkdir()
        both = [rig.add(part, part.kill) for part in (Datasette(self.folder / name, *options) for name in ("direct", "behind"))]
        for part in both:
            part.until_up(part.answers)
        self.rig, self.datasette = rig, both[1]
        self.gateway = self.another()
        self.direct, self.through = both[0].port, self.gateway.port

    def another(self, **settings):
        return self.rig.gateway(datasette_url=self.datasette.url, token=False, **settings)

    def close(self):
        shutil.rmtree(self.folder)

    def ask(self, port, data, to="GET"):
        """The answer to these bytes on a connection of its own."""
        with Wire(port, limit=60) as wire:
            wire.send(data)
            return Seen(wire, to)

    def both(self, data, to="GET", through=None):
        return self.ask(self.direct, data, to), self.ask(through or self.through, data, to)


def request(method, target, *fields, body=b"", host=HOST, version="HTTP/1.1", length=True):
    """Its bytes; a body gets Content-Length unless it has another framing."""
    lines = [f"{method} {target} {version}", *([f"Host: {host}"] if host else []), *fields]
    if body and length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


# What differs between two direct requests as well.
NOISE = [
    (re.compile(rb'"query_ms": [\d.]+'), b'"query_ms": 0'),
    (re.compile(rb"Queries took [\d.]+\s*ms"), b"Queries took 0ms"),
    (re.compile(rb'"(duration_ms|start|end|sum_trace_duration_ms|request_duration_ms)": [\d.]+'), b'"time": 0'),
    (re.compile(rb"/[^\"]+/((sample|readonly|odd|frozen)\.db)"), rb"/\1"),
]


class Seen:
    """An answer as its reader sees it: the status line, the fields in their order and spelling, the body, and how it ended."""

    def __init__(self, wire, to="GET"):
        self.interim = []
        while (head := wire.head()).status < 200:
            self.interim.append(head.status)
        self.head, self.status, self.fields = head, head.status, head.fields
        line = head.raw.split(b"\r\n")[0].decode("latin-1")
        self.version, self.reason = line[:8], line[13:].strip()
        pieces, self.end = [], "whole"
        try:
            for piece in wire.body(head, to):
                pieces.append(piece)
        except CutOff:
            self.end = "cut"
            pieces.append(wire.buffer)
        self.body = b"".join(pieces)
        self.quiet_body = self.body
        for pattern, instead in NOISE:
            self.quiet_body = pattern.sub(instead, self.quiet_body)

    def all(self, name):
        return self.head.all(name)

    def __getitem__(self, name):
        return self.head[name]
