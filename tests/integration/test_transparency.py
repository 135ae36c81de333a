"""A real Datasette asked directly, and its twin through the gateway: nobody who looks only at the answers can tell which is which."""
import concurrent.futures
import hashlib
import json
import random
import re
import time

import pytest
from itsdangerous import URLSafeSerializer

import twins as pairs
from transparency import JSON, PAGES, ROWS, differences, method_of, told
from twins import HOST, Seen, request
from wire import CutOff, Wire


@pytest.fixture(scope="module")
def twins(shared_rig):
    twins = pairs.Twins(shared_rig)
    yield twins
    twins.close()


@pytest.mark.smoke
@pytest.mark.parametrize("name", ROWS)
def test_answers(twins, name):
    data = ROWS[name]
    direct, through = twins.both(data, to=method_of(data))
    found = differences(direct, through, method_of(data))
    assert not found, "\n".join(found)


def test_answers_with_the_cache(twins):
    """Twice each, so that the second one may come from the cache: nothing differs but Age and Cache-Status. A part of the table, for time."""
    cached, hits = twins.another(cache_bytes="16MiB").port, 0
    asked = [(name, data) for name, data in ROWS.items() if method_of(data) in ("GET", "HEAD") and b"/-/wire/" not in data]
    for name, data in asked[::6]:
        direct = twins.ask(twins.direct, data, method_of(data))
        for _ in range(2):
            through = twins.ask(cached, data, method_of(data))
            hits += any(value.startswith("spritegate; hit") for value in through.all("Cache-Status"))
            through.head.fields = through.fields = [field for field in through.fields if field[0] not in ("Age", "Cache-Status")]
            found = differences(direct, through, method_of(data))
            assert not found, name + "\n" + "\n".join(found)
    assert hits >= 3


def test_the_table_is_worth_something(twins):
    """It has many real pages, of many kinds."""
    assert len(ROWS) >= 350
    statuses = [twins.ask(twins.through, request("GET", page)).status for page in PAGES if "/-/wire/" not in page]
    assert statuses.count(200) >= 60 and {301, 302, 400, 403, 404} <= set(statuses), sorted(statuses)


# -- many requests on a connection -------------------------------------------------------

def conversation(port, requests):
    """Sent all at once, answered one after the other."""
    with Wire(port, limit=60) as wire:
        wire.send(b"".join(requests))
        return [Seen(wire, method_of(data)) for data in requests]


def test_pipelining(twins):
    asked = [request("GET", "/sample.json"), request("POST", "/-/wire/echo", body=b"abc"), request("HEAD", "/assets/data.bin"), request("GET", "/no"),
             request("GET", "/-/wire/late?seconds=0.2"), request("GET", "/-/wire/size/300000?pieces=10"), request("GET", "/-/wire/status/204"),
             request("POST", "/-/wire/echo", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n", length=False), request("GET", "/favicon.ico")]
    for data, direct, through in zip(asked, conversation(twins.direct, asked), conversation(twins.through, asked), strict=True):
        assert not differences(direct, through, method_of(data)), data


def test_one_connection_for_many_pages(twins):
    asked = [data for data in ROWS.values() if b"crash" not in data and b"Connection: close" not in data and data.startswith(b"GET") and len(data) < 3000][::5]
    with Wire(twins.through, limit=60) as wire:
        for data in asked:
            wire.send(data)
            assert Seen(wire).end == "whole", data


# -- HTTP/1.0 -----------------------------------------------------------------------------

@pytest.mark.parametrize("target", ["/sample.json", "/assets/data.bin", "/no", "/-/wire/size/300000?pieces=100", "/-/wire/size/300000?pieces=100&framing=length", "/-/wire/status/204"])
@pytest.mark.parametrize("fields", [(), ("Connection: keep-alive",)], ids=["plain", "keep-alive"])
def test_http_1_0(twins, target, fields):
    """The answers are the same, and their end can be seen."""
    for host in (HOST, None) if "wire" not in target and not fields else (HOST,):
        direct, through = twins.both(request("GET", target, *fields, version="HTTP/1.0", host=host))
        assert not differences(direct, through)
        assert through["Transfer-Encoding"] is None


def test_http_1_0_sees_a_crash(twins):
    """An answer that ends with its connection can be cut only by a reset."""
    direct, through = twins.both(request("GET", "/-/wire/crash?pieces=3&length=1&gap=0.05", version="HTTP/1.0"))
    assert direct.end == through.end == "cut"


# -- Expect ---------------------------------------------------------------------------------

EXPECTING = {
    "wanted": (request("POST", "/-/wire/echo", "Expect: 100-continue", "Content-Length: 3"), b"abc", [100], 200),
    "wanted, chunked": (request("POST", "/-/wire/echo", "Expect: 100-continue", "Transfer-Encoding: chunked"), b"3\r\nabc\r\n0\r\n\r\n", [100], 200),
    "refused unread": (request("POST", "/-/wire/refuse", "Expect: 100-continue", "Content-Length: 100000000"), b"", [], 403),
    "too large": (request("POST", "/sample/empty/-/insert", JSON, "Expect: 100-continue", "Content-Length: 2097153"), b"", [], 413),
    "not a form": (request("POST", "/-/wire/form", "Expect: 100-continue", "Content-Length: 3"), b"", [], 400),
    "from elsewhere": (request("POST", "/sample/empty/-/insert", "Expect: 100-continue", "Content-Length: 3", "Origin: https://evil.example"), b"", [], 403),
    "nothing follows": (request("POST", "/-/wire/size/10", "Expect: 100-continue", "Content-Length: 0"), b"", None, 200),
    "GET": (request("GET", "/-/wire/size/10", "Expect: 100-continue"), b"", None, 200),
}


@pytest.mark.parametrize("name", EXPECTING)
def test_expect_100_continue(twins, name):
    """Datasette decides whether a body is wanted; one that it does not want is not sent."""
    head, body, interim, status = EXPECTING[name]
    seen = []
    for port in (twins.direct, twins.through):
        with Wire(port) as wire:
            began = time.monotonic()
            wire.send(head)
            if body:
                assert wire.head().status == 100
                wire.send(body)
            seen.append(Seen(wire))
            seen[-1].interim = interim or seen[-1].interim
    direct, through = seen
    if interim is None or time.monotonic() - began > 3:     # nothing is waited for, or not any more; uvicorn says 100 to all
        direct.interim = through.interim = []
    assert not differences(direct, through, "POST")
    assert through.status == status and (body or not through.interim)


# -- large bodies -----------------------------------------------------------------------------

LARGEST_FORM = 100 << 20     # bytes of a body that Datasette takes for a form
PART = b"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"%d.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n"
BLOCK = random.Random(1).randbytes(1 << 20)


def form_of_two_files(port, total):
    """The sizes of the files, which make the body as large as that, and the answer."""
    around = sum(len(PART % i) + len(b"\r\n") for i in range(2)) + len(b"--b--\r\n")
    sizes = [50 << 20, total - around - (50 << 20)]
    with Wire(port, limit=60) as wire:
        wire.send(request("POST", "/-/wire/form", "Content-Type: multipart/form-data; boundary=b", f"Content-Length: {total}"))
        for i, size in enumerate(sizes):
            wire.send(PART % i)
            for begin in range(0, size, len(BLOCK)):
                wire.send(BLOCK[:min(len(BLOCK), size - begin)])
            wire.send(b"\r\n")
        wire.send(b"--b--\r\n")
        return sizes, Seen(wire)


def test_a_form_of_100_mb(twins):
    """As large as Datasette takes."""
    sizes, answer = form_of_two_files(twins.through, LARGEST_FORM)
    assert answer.status == 200, answer.body
    digests = []
    for size in sizes:
        whole = hashlib.sha256(BLOCK * (size >> 20))
        whole.update(BLOCK[:size & ((1 << 20) - 1)])
        digests.append([size, whole.hexdigest()])
    assert [entry[3:] for entry in json.loads(answer.body)] == digests


def test_a_form_of_100_mb_and_a_byte(twins):
    """It is Datasette's to refuse."""
    answer = form_of_two_files(twins.through, LARGEST_FORM + 1)[1]
    assert answer.status == 400 and b"Request body too large" in answer.body, (answer.status, answer.body)


# -- heads larger than the default -----------------------------------------------------------

def test_60_kb_heads_are_a_setting(twins):
    large = twins.another(max_head_bytes="128KiB")
    for data in (request("GET", "/-/wire/echo?" + "q" * 60_000), request("GET", "/sample/-/query?sql=select+1+--" + "a'\"" * 15_000),
                 request("GET", "/-/wire/echo", *(f"X-{i}: {'v' * 1000}" for i in range(60)))):
        direct, through = twins.both(data, through=large.port)
        assert direct.status in (200, 302), direct.status
        assert not differences(direct, through)


# -- the scheme, as a trusted proxy tells it ---------------------------------------------------

def test_https_of_a_trusted_proxy(twins):
    trusting = twins.another(trusted_proxies="127.0.0.0/8")
    https = "X-Forwarded-Proto: https"
    for data in (request("GET", "/sample/readings?_size=3", https), request("GET", "/sample/readings.json?_size=3", https), request("GET", "/-/wire/echo", https),
                 request("POST", "/sample/empty/-/insert", https, JSON, f"Origin: https://{HOST}", body=b'{"row": {"text": "x"}}'),
                 request("POST", "/sample/empty/-/insert", https, JSON, f"Origin: http://{HOST}", body=b'{"row": {"text": "x"}}')):
        direct, through = twins.both(data, through=trusting.port)
        assert not differences(direct, through, method_of(data))
        assert b"wire/echo" not in data or told(through.body)["scheme"] == "https"


def test_under_a_prefix_with_https_urls(shared_rig):
    """base_url and force_https_urls: Datasette takes the prefix off where it finds it, and repeats it in the addresses that it makes."""
    pair = pairs.Twins(shared_rig, "--setting", "base_url", "/prefix/", "--setting", "force_https_urls", "1")
    try:
        pages = [request("GET", page) for page in (
            "/", "/prefix", "/prefix/", "/prefix/prefix/", "//prefix/sample", "/prefix/sample/", "/sample", "/prefix/sample/stations",
            "/prefix/odd/a%2Fb", "/prefix/-/static/app.css", "/prefix/-/auth-token?token=x", "/prefix/-/logout", "/prefix/:memory:?sql=select+1",
            "/prefix/sample/readings?_size=2", "/prefix/sample/readings.json?_size=2", "/sample/readings.json?_size=2", "/prefix/-/agent/exec")]
        writes = [request("POST", "/prefix/sample/empty/-/insert", JSON, f"Origin: {scheme}://{HOST}", body=b'{"row": {"text": "x"}}') for scheme in ("http", "https")]
        for data in pages + writes:
            direct, through = pair.both(data)
            assert not differences(direct, through, method_of(data)), data
        answer = json.loads(pair.ask(pair.through, request("GET", "/sample/readings.json?_size=2")).body)
        assert answer["next_url"].startswith(f"https://{HOST}/prefix/sample/"), answer["next_url"]
    finally:
        pair.close()


# -- what only an answer of Datasette tells ------------------------------------------------------

def test_addresses_and_names_that_datasette_hands_out(twins):
    """A style sheet that may be kept for a year, and a download that has not changed."""
    hashed = re.search(rb"/-/static/app\.css\?[^\"]+", twins.ask(twins.direct, request("GET", "/")).body)[0].decode()
    direct, through = twins.both(request("GET", hashed))
    assert not differences(direct, through) and "immutable" in through["Cache-Control"]
    name = twins.ask(twins.direct, request("HEAD", "/frozen.db"), "HEAD")["Etag"]
    direct, through = twins.both(request("GET", "/frozen.db", f"If-None-Match: {name}"))
    assert not differences(direct, through) and through.status == 304


# -- signed in -----------------------------------------------------------------------------------

def test_signed_in(twins, signed_in):
    """Cookies in several lines, and the login, the logout and the flash message that Datasette sets."""
    direct, through = twins.both(request("GET", "/-/actor.json", "Cookie: a=b", f"Cookie: {signed_in}", "Cookie: c=d"))
    assert json.loads(through.body)["actor"]["id"] == "root", "several Cookie lines lose the login"
    assert json.loads(direct.body)["actor"] is None, "Datasette reads them all by now: the gateway need not join them"
    for data in (request("GET", "/-/actor.json", f"Cookie: {signed_in}"), request("GET", "/", f"Cookie: {signed_in}"),
                 request("GET", "/-/logout", f"Cookie: {signed_in}"), request("POST", "/-/logout", f"Cookie: {signed_in}", f"Origin: http://{HOST}"),
                 request("GET", "/-/create-token", f"Cookie: {signed_in}"), request("GET", "/sample/-/execute-write", f"Cookie: {signed_in}")):
        direct, through = twins.both(data)
        assert not differences(direct, through, method_of(data)), data


def test_writing(twins, signed_in):
    """The life of a table."""
    for target, body in (("/sample/-/create", {"table": "new", "rows": [{"id": 1, "name": "é"}], "pk": "id"}), ("/sample/new/-/insert", {"rows": [{"id": 2, "name": "b"}], "return": True}),
                         ("/sample/new/-/insert", {"row": {"id": 2, "name": "again"}}), ("/sample/new/-/upsert", {"rows": [{"id": 2, "name": "c"}]}),
                         ("/sample/new/1/-/update", {"update": {"name": "d"}, "return": True}), ("/sample/new/2/-/delete", {}), ("/sample/new/9/-/delete", {}),
                         ("/sample/new/-/drop", {}), ("/sample/new/-/drop", {"confirm": True}), ("/sample/new/-/insert", {"row": {}})):
        data = request("POST", target, JSON, f"Cookie: {signed_in}", f"Origin: http://{HOST}", body=json.dumps(body).encode())
        direct, through = twins.both(data)
        assert not differences(direct, through, "POST"), (target, direct.status, direct.body[:300])
        assert direct.status in (200, 201, 400, 404), (target, direct.body)


@pytest.fixture(scope="module")
def signed_in():
    return "ds_actor=" + URLSafeSerializer(pairs.sample.SECRET, "actor").dumps({"a": {"id": "root"}})


def test_bearer_tokens_of_datasette(twins):
    token = "dstok_" + URLSafeSerializer(pairs.sample.SECRET, "token").dumps({"a": "root", "t": int(time.time())})
    direct, through = twins.both(request("GET", "/-/actor.json", f"Authorization: Bearer {token}"))
    assert not differences(direct, through)
    assert json.loads(through.body)["actor"]["id"] == "root" and through["Cache-Control"] == "private, no-store"


# -- streams ----------------------------------------------------------------------------------------

def test_csv_of_30_000_rows(twins):
    """One chunk a row from Datasette."""
    data = request("GET", "/odd/many.csv?_stream=on")
    direct, through = twins.both(data)
    assert not differences(direct, through)
    assert through.body.count(b"\r\n") >= 30_001 and through.end == "whole"
    assert through["Transfer-Encoding"] == "chunked", "it was held back until it was complete"


def test_an_export_begins_before_its_last_row_is_made(twins):
    """Datasette's own, which is half done when its first byte is here."""
    for port in (twins.direct, twins.through):
        with Wire(port) as wire, Wire(port) as opener:
            wire.send(request("GET", "/odd/many.csv?_stream=on&_wire_pieces=15000&_wire_gate=export"))
            pieces = wire.body(wire.head())
            first = next(pieces)
            assert first.startswith(b"id,group")
            opener.send(request("GET", "/-/wire/open?name=export"))
            assert Seen(opener).body == b"open"
            assert (first + b"".join(pieces)).count(b"\r\n") == 30_001


@pytest.mark.parametrize("type", ["text/csv", "text/event-stream", "application/octet-stream"])
def test_first_half_comes_before_the_second_is_made(twins, type):
    for port in (twins.direct, twins.through):
        with Wire(port) as wire, Wire(port) as opener:
            wire.send(request("GET", f"/-/wire/gate?name={type}&type={type}"))
            pieces = wire.body(wire.head())
            got = next(pieces)
            assert got == b"first half\n"
            opener.send(request("GET", f"/-/wire/open?name={type}"))
            assert Seen(opener).body == b"open"
            assert b"".join(pieces) == b"second half\n"


def arrivals(port, target):
    """The pieces of a stream, and the seconds between the first and the last one."""
    with Wire(port) as wire:
        wire.send(request("POST", target, "Accept: text/event-stream"))
        head = wire.head()
        assert head.status == 200 and head["Content-Encoding"] == "none", head.fields
        pieces, times = [], []
        for piece in wire.body(head):
            pieces.append(piece)
            times.append(time.monotonic())
        return pieces, times[-1] - times[0]


def test_events_arrive_as_they_are_made(twins):
    target = "/-/wire/events?count=6&gap=0.25"
    (direct, _), (through, seconds) = arrivals(twins.direct, target), arrivals(twins.through, target)
    assert through == direct and len(through) == 7
    assert seconds > 1, f"they came within {seconds} s"


def test_events_after_a_long_silence(twins):
    """As an agent that waits for its tools: silent for longer than every limit but the one of event streams."""
    impatient = twins.another(datasette_timeout_seconds=1, client_idle_seconds=1)
    pieces, seconds = arrivals(impatient.port, "/-/wire/events?count=2&gap=4")
    assert len(pieces) == 3 and seconds > 7, f"{pieces} within {seconds} s"
    assert twins.ask(impatient.port, request("GET", "/-/wire/late?seconds=4")).status == 504, "the limit does not hold"


# -- connections that Datasette's server closes after exactly 5 s --------------------------------------

def test_no_request_is_lost_when_idle_connections_close(twins):
    """Reads and writes that come when the connections to Datasette have been idle for about 5 s, again and again, while Datasette is busy: what it
    reads late it may have closed before."""
    gateway, failures, over = twins.another(workers=1), [], time.monotonic() + 10.5

    def ask(gap, method, path):
        with Wire(gateway.port) as wire:
            while time.monotonic() < over:
                try:
                    wire.send(request(method, path, body=b"x" if method == "POST" else b""))
                    answer = Seen(wire)
                    if answer.status != 200:
                        failures.append((gap, method, answer.status, answer.body))
                except (CutOff, OSError) as failure:
                    failures.append((gap, method, failure))
                    return
                time.sleep(gap)

    gaps = [3.9, 4.0, 4.1, *(4.95 + 0.005 * i for i in range(31))]
    clients = [(gap, "GET" if i % 4 == 0 else "POST", "/-/wire/echo") for i, gap in enumerate(gaps)] + 4 * [(0.01, "GET", "/-/wire/busy")]
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as threads:
        done = [threads.submit(ask, *client) for client in clients]
    assert not [future.result() for future in done if future.result()] and not failures, failures
