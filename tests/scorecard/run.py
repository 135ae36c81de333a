#!/usr/bin/env python3
"""./tests/run scorecard: the gateway, nginx and HAProxy of Debian before the same servers, with the same requests and answers.

The rows are those of tests/integration/vectors.py and transparency.py; each proxy is configured as for ./tests/run bench, which
is how one would put it in front of Datasette. A row is right when the proxy does what the standard asks:

  refuse   a request that must not be taken is not: no answer below 400, nothing of it arrives whole
  pass     a request that must be taken is answered, and arrives as it was meant
  either   a request that may be refused, or taken: then a second request that is hidden in it does not arrive
  answer   a broken answer does not look whole to the client; an unusual one reaches it as it was meant
  mirror   an answer of a real Datasette has the same status, body and end as without the proxy, and Datasette was asked the same
  fields   its fields are the same, in any order and spelling; Server may be the proxy's own
  exact    nothing differs but what transparency.py allows

What is this gateway's own policy is left out. The exit status is 1 when something could not be measured, and when nginx is right in a
row in which the gateway is not, unless the row is in KNOWN; a row of KNOWN that is right, or gone, has to leave it and is 1 as well.
"""
import contextlib
import pathlib
import shutil
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP / "tests/bench"), str(TOP / "tests/integration")]

import rig  # noqa: E402
import servers  # noqa: E402
from figures import table  # noqa: E402
from nasty import Upstream  # noqa: E402
from observer import Recorder, observe  # noqa: E402
from processes import NotMeasured, Programs  # noqa: E402
from transparency import ROWS, differences, fields_of, method_of  # noqa: E402
from twins import Datasette, Seen  # noqa: E402
from vectors import EITHER, PASS, POLICY, REFUSE, REPLIES, REQUESTS  # noqa: E402
from wire import Broken, CutOff, Wire  # noqa: E402

PROXIES = ("gateway", "nginx", "haproxy")
FOLDER = TOP / "build/scorecard"
SECONDS = 2     # so long an answer is waited for
PATIENCE = 30   # and when the gateway was behind nginx in a row, which is then looked at again: it may have been the machine

# Rows in which the gateway is behind nginx; docs/ARCHITECTURE.md says why of each.
KNOWN = set()


class Base:
    """What a gateway needs besides Datasette."""

    def __init__(self, programs):
        self.redis, self.sprites = servers.redis(programs, None), servers.emulator(programs)


def is_behind(found):
    return found["gateway"] and not found["nginx"]


def judged(name, look):
    """What is wrong with each proxy; look(seconds) says it."""
    found = look(SECONDS)
    return look(PATIENCE) if is_behind(found) and name not in KNOWN else found


def start(programs, base, name, upstream, title):
    name_of_part = f"{name}-{title}"
    if name == "gateway":
        return servers.gateway(programs, name_of_part, base, upstream, workers=1, pool_hot=0).port
    return getattr(servers, name)(programs, name_of_part, upstream, None).port


# --- requests ----------------------------------------------------------------------------------------------------------

# Fields that a proxy may rightly keep or add in its own way.
ITS_OWN = ("Connection", "Expect", "Trailer")


def joined(name, values):
    return ("; " if name == "Cookie" else ", ").join(values)


def arrives_as_meant(row, seen):
    method, target, *_ = row.arrives.split(" ")
    came = seen.whole[0]
    if (came.method, came.target) != (method, target):
        return f"arrives as {came.method} {came.target}"
    if came.content not in (row.body, row.data.partition(b"\r\n\r\n")[2], b"abc" if b"abc" in row.data else row.body):
        return f"another body arrives: {came.content[:20]}"
    for name, values in row.fields.items():
        got = joined(name, came.all(name))
        right = bool(got) if name == "Via" else name in ITS_OWN or got == joined(name, values)
        if not right:
            return f"{name}: {got or 'absent'}"
    return None


def judge_request(row, seen):
    """None when it is right, or what is wrong."""
    status = seen.statuses[0] if seen.statuses else 0
    if row.demand == EITHER:
        return "the request hidden in it arrives" if any(exchange.target == "/hidden" for exchange in seen.whole) else None
    if row.demand == REFUSE:
        if 0 < status < 400 or seen.arrived:
            return f"is taken: {status}, {', '.join(seen.arrived)}"
        return None
    if not 200 <= status < 300:
        return f"is refused: {status or seen.end}"
    if row.status >= 400:       # what the gateway should take, but does not
        return None if seen.whole else "does not arrive"
    if not row.arrives:
        return f"arrives: {', '.join(seen.arrived)}" if seen.arrived else None
    return arrives_as_meant(row, seen) if seen.whole else "does not arrive"


def requests(programs, base):
    with contextlib.closing(Recorder()) as recorder:
        ports = {name: start(programs, base, name, recorder.port, "requests") for name in PROXIES}
        for name, row in REQUESTS.items():
            if row.demand != POLICY:
                def look(seconds, row=row):
                    return {proxy: judge_request(row, observe(port, recorder, row.data, seconds)) for proxy, port in ports.items()}

                yield row.demand, name, judged(name, look)


# --- answers --------------------------------------------------------------------------------------------------------------

def judge_answer(row, port, seconds):
    with Wire(port, limit=seconds) as wire:
        try:
            wire.ask(row.method, "/raw")
            answer = wire.answer(to=row.method)
        except Broken as broken:
            return f"the client cannot read it: {broken}"
        except CutOff:
            return "is cut" if row.demand == PASS else None
        except TimeoutError:
            return "nothing comes"
        if row.body is None:
            return f"looks whole: {answer.status}" if answer.status < 500 and row.demand == REFUSE else None
        if (answer.status, answer.body) != (row.status, row.body):
            return f"became {answer.status} {answer.body[:20]}" if row.demand == PASS or answer.status < 500 else None
        if row.demand == PASS:
            for name, values in row.fields.items():
                if name not in ITS_OWN and joined(name, answer.all(name)) != joined(name, values):
                    return f"{name}: {joined(name, answer.all(name)) or 'absent'}"
        return None if (answer["Connection"] or "").lower() == "close" else in_step(wire)


def in_step(wire):
    wire.ask("GET", "/next")
    try:
        return None if wire.answer().body == b"clean" else "the next answer is another one"
    except CutOff:
        return None
    except (Broken, TimeoutError):
        return "the next answer cannot be read"


def answers(programs, base):
    with contextlib.closing(Upstream()) as upstream:
        upstream.routes["/next"] = lambda exchange: exchange.reply(body=b"clean")
        ports = {name: start(programs, base, name, upstream.port, "answers") for name in PROXIES}
        for name, row in REPLIES.items():
            if row.demand == POLICY:
                continue

            @upstream.on("/raw")
            def reply(exchange, data=row.data):
                exchange.send(data)
                time.sleep(0.02)
                exchange.hang_up()

            def look(seconds, row=row):
                return {proxy: judge_answer(row, port, seconds) for proxy, port in ports.items()}

            yield "answer", name, judged(name, look)


# --- a real Datasette ---------------------------------------------------------------------------------------------------------

def seen_through(port, data):
    with Wire(port, limit=30) as wire:
        try:
            wire.send(data)
            return Seen(wire, method_of(data))
        except (CutOff, Broken, ConnectionError) as failure:
            return failure


def unordered(seen):
    return sorted((name.lower(), value) for name, value in fields_of(seen) if name.lower() != "server")


ASPECTS = ("mirror", "fields", "exact")


def judge_mirror(direct, through, data):
    """For each of ASPECTS: None, or what differs."""
    if not isinstance(through, Seen):
        return dict.fromkeys(ASPECTS, f"no answer: {type(through).__name__}")
    found = differences(direct, through, method_of(data))
    content = [what for what in found if not what.startswith(("fields:", "reason:"))]
    changed = set(unordered(direct)) ^ set(unordered(through))
    return {"mirror": "; ".join(content) or None,
            "fields": ", ".join(f"{name}: {value}" for name, value in sorted(changed)) or None,
            "exact": "; ".join(found) or None}


def mirror(programs, base):
    """Each stands before a Datasette of its own, because there are writes among the requests."""
    with contextlib.ExitStack() as parts:
        sites = {}
        for name in ("direct", *PROXIES):
            sites[name] = Datasette(FOLDER / name)
            parts.callback(sites[name].kill)
        for site in sites.values():
            site.until_up(site.answers)
        ports = {name: start(programs, base, name, sites[name].port, "mirror") for name in PROXIES}

        def look(data):
            direct = seen_through(sites["direct"].port, data)
            found = {proxy: judge_mirror(direct, seen_through(port, data), data) for proxy, port in ports.items()}
            return {aspect: {proxy: found[proxy][aspect] for proxy in PROXIES} for aspect in ASPECTS}

        for name, data in ROWS.items():
            found = look(data)
            if any(map(is_behind, found.values())):
                found = look(data)
            yield from ((aspect, name, found[aspect]) for aspect in ASPECTS)


# --- the card -------------------------------------------------------------------------------------------------------------------

GROUPS = {REFUSE: "requests that must be refused", PASS: "requests that must be taken", EITHER: "requests that may be refused", "answer": "answers of a broken server",
          "mirror": "Datasette: the same answer", "fields": "Datasette: the same fields", "exact": "Datasette: nothing differs"}
LISTED = 12     # of a kind, for each proxy


def print_behind(rows):
    """Whether nginx is ahead only where that is known, and still there."""
    behind = [(group, name, found["gateway"]) for group, name, found in rows if is_behind(found)]
    names = {name for _, name, _ in behind}
    print(f"\nnginx is right and the gateway is not in {len(behind)} of {len(rows)} rows:")
    for group, name, what in behind:
        print(f"  {'known' if name in KNOWN else 'NEW':5}  {group:7} {name[:60]:60} {what[:110]}")
    for name in KNOWN - names:
        print(f"  level  {name}: no row of KNOWN any more")
    return names == KNOWN


def print_card(rows):
    lines = []
    for group, title in GROUPS.items():
        verdicts = [found for kind, _, found in rows if kind == group]
        lines.append([title, str(len(verdicts)), *(str(sum(found[proxy] is None for found in verdicts)) for proxy in PROXIES)])
    print(table(["rows that are right", "of", *PROXIES], lines))
    for proxy in PROXIES:
        print(f"\n{proxy}, what is not right:")
        for group in GROUPS:
            wrong = [(name, found[proxy]) for kind, name, found in rows if kind == group and found[proxy]]
            shown = wrong if group in (REFUSE, PASS, EITHER, "answer") else wrong[:LISTED]
            for name, what in shown:
                print(f"  {group:7} {name[:60]:60} {what[:110]}".rstrip())
            if len(shown) < len(wrong):
                print(f"  {group:7} … and {len(wrong) - len(shown)} more")


def main():
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    began = time.monotonic()
    try:
        with Programs(FOLDER) as programs:
            base = Base(programs)
            rows = [row for part in (requests, answers, mirror) for row in part(programs, base)]
    except NotMeasured as failure:
        print(f"NOT MEASURED  {failure}")
        return 1
    finally:
        shutil.rmtree(rig.LOGS, ignore_errors=True)
    print_card(rows)
    level = print_behind(rows)
    print(f"\n{len(rows)} rows, {len(rows) * len(PROXIES)} runs in {time.monotonic() - began:.0f} s")
    return not level


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
