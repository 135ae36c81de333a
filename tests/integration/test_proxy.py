"""What goes through to Datasette and back: methods, bodies, fields, and connections that are used again."""
import http
import threading
import time

import pytest

from answers import is_uuid7
from rig import until
from wire import CutOff, Wire

HOLD_SECONDS = 3    # so long a body waits for a server that does not say whether it wants it


@pytest.fixture(scope="module")
def upstream(shared_rig):
    return shared_rig.upstream()


@pytest.fixture(scope="module")
def gateway(shared_rig, upstream):
    return shared_rig.gateway(datasette_url=upstream.url, token=False)


@pytest.fixture
def wire(gateway):
    with Wire(gateway.port) as wire:
        yield wire


def mirror(exchange):
    """Answers with the body that came."""
    exchange.reply("200 OK", "X-Was: " + exchange.method, body=exchange.read())


# -- methods --------------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"])
def test_methods(gateway, upstream, wire, method):
    upstream.routes["/mirror"] = mirror
    body = b"" if method in ("GET", "OPTIONS") else b"some body"
    wire.ask(method, "/mirror?a=1&a=2", body=body)
    answer = wire.answer()
    assert (answer.status, answer["X-Was"], answer.body) == (200, method, body)
    assert upstream.asked("/mirror")[-1].target == "/mirror?a=1&a=2"


def test_empty_body_is_a_body(upstream, wire):
    upstream.routes["/mirror"] = mirror
    wire.ask("POST", "/mirror", "Content-Length: 0")
    assert wire.answer().status == 200
    assert upstream.asked("/mirror")[-1]["Content-Length"] == "0"


@pytest.mark.parametrize("size", [0, 1, 100, 65535, 65536, 1_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_both_ways(upstream, wire, size, chunked):
    upstream.routes["/mirror"] = mirror
    body = bytes(i * 31 % 256 for i in range(size))
    if chunked:
        wire.ask("POST", "/mirror", "Transfer-Encoding: chunked")
        for start in range(0, size, 7919):
            wire.chunk(body[start:start + 7919])
        wire.send(b"0\r\n\r\n")
    else:
        wire.ask("POST", "/mirror", f"Content-Length: {size}", body=body, length=False)
    answer = wire.answer()
    assert answer.status == 200 and answer.body == body, f"{len(answer.body)} of {size} bytes came back"
    came = upstream.asked("/mirror")[-1]
    assert (came["Transfer-Encoding"] == "chunked") is chunked, "the framing is not as it came"


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_framing_of_answers(upstream, wire, framing):
    body = bytes(range(256)) * 1000

    @upstream.on("/framed")
    def answer(exchange):
        if framing == "length":
            exchange.reply(body=body)
        elif framing == "chunked":
            exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
            for start in range(0, len(body), 1000):
                exchange.chunk(body[start:start + 1000])
            exchange.send("0\r\n\r\n")
        else:
            exchange.reply("200 OK", "Connection: close", length=False)
            exchange.send(body)
            exchange.hang_up()

    wire.ask("GET", "/framed")
    got = wire.answer()
    assert got.status == 200 and got.body == body
    if framing == "length":
        assert got["Content-Length"] == str(len(body))
    wire.ask("GET", "/framed")
    assert wire.answer().body == body, "the connection was of no use after an answer"


# -- answers without a body ------------------------------------------------------

@pytest.mark.parametrize("fields", [("Content-Length: 1234",), ("Transfer-Encoding: chunked",), ()])
def test_head(upstream, wire, fields):
    upstream.routes["/head"] = lambda exchange: exchange.reply("200 OK", "X-Custom: 1", *fields, length=False)
    wire.ask("HEAD", "/head")
    answer = wire.answer(to="HEAD")
    assert (answer.status, answer["X-Custom"]) == (200, "1")
    assert answer["Content-Length"] == ("1234" if fields[:1] == ("Content-Length: 1234",) else None)
    upstream.routes["/mirror"] = mirror
    wire.ask("GET", "/mirror")
    assert wire.answer().status == 200, "after HEAD the connection is out of step"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body(upstream, wire, status):
    upstream.routes["/none"] = lambda exchange: exchange.reply(status, 'ETag: "abc"', length=False)
    wire.ask("GET", "/none")
    answer = wire.answer()
    assert (answer.status, answer["ETag"], answer.body) == (int(status[:3]), '"abc"', b"")
    assert answer["Transfer-Encoding"] is None
    if answer.status == 204:
        assert answer["Content-Length"] is None, "204 with Content-Length"
    upstream.routes["/mirror"] = mirror
    wire.ask("GET", "/mirror")
    assert wire.answer().status == 200, f"after {status} the connection is out of step"


def test_304_keeps_its_content_length(upstream, wire):
    upstream.routes["/none"] = lambda exchange: exchange.reply("304 Not Modified", "Content-Length: 99", length=False)
    wire.ask("GET", "/none")
    assert wire.answer()["Content-Length"] in (None, "99")
    wire.ask("GET", "/none")
    assert wire.answer().status == 304


@pytest.mark.parametrize("status", [200, 201, 206, 301, 302, 400, 404, 418, 451, 500, 503, 599])
def test_any_status_and_reason(upstream, wire, status):
    upstream.routes["/status"] = lambda exchange: exchange.reply(f"{status} Some Reason", "Location: /x y", body=b"body")
    wire.ask("GET", "/status")
    answer = wire.answer()
    assert (answer.status, answer.body, answer["Location"]) == (status, b"body", "/x y")
    reason = answer.raw.partition(b"\r\n")[0][13:].decode().strip()
    assert reason == ("" if status == 599 else http.HTTPStatus(status).phrase), "libmicrohttpd has no place for the upstream's"


def test_interim_answers_are_passed_on(upstream, wire):
    @upstream.on("/hints")
    def answer(exchange):
        exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        exchange.reply(body=b"done")

    wire.ask("GET", "/hints")
    got = wire.answer()
    assert (got.status, got.body) == (200, b"done")
    assert [one.status for one in got.interim] == [103], "RFC 9110 15.2: 1xx must be forwarded"
    assert got.interim[0]["Link"] == "</a.css>; rel=preload"


# -- fields of the answer ---------------------------------------------------------

def test_several_fields_of_one_name_in_order(upstream, wire):
    fields = ["Set-Cookie: a=1; Path=/", "Link: <one>; rel=next", "set-cookie: b=2, c", "X-Other: x", "link: <two>", "Set-Cookie: a=3"]
    upstream.routes["/many"] = lambda exchange: exchange.reply("200 OK", *fields)
    wire.ask("GET", "/many")
    answer = wire.answer()
    assert answer.all("Set-Cookie") == ["a=1; Path=/", "b=2, c", "a=3"]
    assert answer.all("Link") == ["<one>; rel=next", "<two>"]
    names = [name for name, _ in answer.fields if name.lower() in ("set-cookie", "link")]
    assert names == ["Set-Cookie", "Link", "set-cookie", "link", "Set-Cookie"], "order or case has changed"


def test_fields_of_an_answer_stay_as_they_are(upstream, wire):
    fields = ["ETag: W/\"x\"", "Content-Type: text/html; charset=utf-8", "Vary: Cookie, Authorization", "Cache-Control: max-age=5",
              "Content-Encoding: none", "X-Empty:", "X-Utf8: Tórshavn", "Date: Sun, 06 Nov 1994 08:49:37 GMT", "Server: uvicorn",
              "Referrer-Policy: no-referrer", "Location: //evil.example/x"]
    upstream.routes["/fields"] = lambda exchange: exchange.reply("200 OK", *fields)
    wire.ask("GET", "/fields")
    answer = wire.answer()
    for line in fields:
        name, _, value = line.partition(":")
        assert answer.all(name) == [value.strip()], f"{name} became {answer.all(name)}"
    assert is_uuid7(answer["X-Request-Id"] or ""), "no request id"
    assert not answer.all("Via") or answer["Via"] == "1.1 spritegate"


# -- fields of the request --------------------------------------------------------

def forwarded(upstream, wire, *fields, method="GET", target="/mirror", **more):
    upstream.routes["/mirror"] = mirror
    wire.ask(method, target, *fields, **more)
    answer = wire.answer(to=method)
    assert answer.status == 200, f"{answer.status} {answer.text}"
    return upstream.asked("/mirror")[-1]


def test_target_goes_through_raw(upstream, wire):
    for target in ("/mirror?sql=select+%27%C3%BC%27&_x=~2F,+", "/mirror?a=%2e%2e/%2f&b=//", "/mirror?", "/mirror??&;=/", "/mirror?q='\"()[]|^`{}\\"):
        came = forwarded(upstream, wire, target=target)
        assert came.target == target


@pytest.mark.parametrize("path", ["/a//b", "/a/./b", "/a/../b", "/%2e%2e/x", "/T%C3%B3rshavn", "/x~2Fy", "/a,b", "/;p", "//evil.example/"])
def test_path_goes_through_raw(upstream, wire, path):
    wire.ask("GET", path)
    assert wire.answer().status == 404
    assert upstream.asked()[-1].target == path


def test_absolute_form_becomes_origin_form(upstream, wire):
    for target, becomes in (("http://gateway.test/mirror?x=1", "/mirror?x=1"), ("http://gateway.test?x=/mirror", "/?x=/mirror")):
        upstream.routes[becomes.partition("?")[0]] = mirror
        wire.ask("GET", target)
        assert wire.answer().status == 200
        came = upstream.asked()[-1]
        assert (came.target, came["Host"]) == (becomes, "gateway.test")


def test_fields_of_a_request_stay_as_they_are(upstream, wire):
    fields = ["Accept: text/html, */*;q=0.1", "accept-language: de", "User-Agent: test/1 (x)", "Origin: https://a.example", "Sec-Fetch-Site: same-origin",
              'If-None-Match: W/"x"', "Accept-Encoding: gzip, br", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
              "Authorization: Bearer dstok_abc", "Cookie: ds_actor=x.y-z", "X-Empty:", "Range: bytes=0-1", "Referer: http://x/y", "X-Latin: \xe9"]
    came = forwarded(upstream, wire, *fields)
    for line in fields:
        name, _, value = line.partition(":")
        assert came.all(name) == [value.strip()], f"{name} became {came.all(name)}"
    assert came.version == "HTTP/1.1"


def test_trusted_proxies(shared_rig, upstream):
    trusting = shared_rig.gateway(datasette_url=upstream.url, trusted_proxies="127.0.0.0/8", token=False)
    with Wire(trusting.port) as wire:
        came = forwarded(upstream, wire, "X-Forwarded-For: 2001:db8::7", "X-Forwarded-Proto: https")
        assert came["X-Forwarded-For"].startswith("2001:db8::7"), came["X-Forwarded-For"]
        assert came["X-Forwarded-Proto"] == "https"
        assert 'for="[2001:db8::7]"' in came["Forwarded"] and "proto=https" in came["Forwarded"], came["Forwarded"]


@pytest.mark.smoke
def test_gateway_tokens_never_reach_datasette(upstream, wire):
    token = "sgt_" + "a" * 16 + "_" + "b" * 38
    came = forwarded(upstream, wire, f"Authorization: Bearer {token}", "X-Datasette-Authorization: Bearer dstok_secret")
    assert came.all("Authorization") == [], "a gateway token was forwarded"
    assert came.all("X-Datasette-Authorization") == []
    for scheme in ("bearer", "BEARER ", "Bearer  "):
        assert forwarded(upstream, wire, f"Authorization: {scheme} {token}").all("Authorization") == [], scheme
    for value in (token, f"Bearer dstok_x, Bearer {token}", f"Bearer {token},dstok_x", f"Basic {token}", f"Bearer dstok_x.{token}", "sgt_short"):
        came = forwarded(upstream, wire, f"Authorization: {value}")
        assert came.all("Authorization") == [] and token not in str(came.fields), value
    came = forwarded(upstream, wire, "Authorization: Bearer dstok_x", f"Authorization: Bearer {token}")
    assert came.all("Authorization") == ["Bearer dstok_x"]


def test_request_id_is_ours(upstream, wire):
    came = forwarded(upstream, wire, "X-Request-Id: mine\r\nX-Request-Id: mine2")
    assert all(is_uuid7(value) for value in came.all("X-Request-Id")) and len(came.all("X-Request-Id")) <= 1


@pytest.mark.parametrize("length", [100, 8000, 20_000, 30_000])
def test_long_targets_and_fields(upstream, wire, length):
    came = forwarded(upstream, wire, "X-Long: " + "v" * 100, target="/mirror?sql=" + "x" * length)
    assert len(came.target) == length + 12
    came = forwarded(upstream, wire, "X-Long: " + "v" * length)
    assert came["X-Long"] == "v" * length


def test_head_above_the_limit(upstream, gateway):
    for fields, target, status, code in (((), "/mirror?x=" + "x" * 40_000, 414, "target-too-large"),
                                         (("X-Long: " + "v" * 40_000,), "/mirror", 431, "header-too-large"),
                                         (tuple(f"X-{i}: {'v' * 400}" for i in range(90)), "/mirror", 431, "header-too-large"),
                                         (tuple(f"X-{i}: v" for i in range(150)), "/mirror", 431, "header-too-large")):
        before = len(upstream.asked())
        with Wire(gateway.port) as wire:
            wire.ask("GET", target, *fields)
            answer = wire.answer()
            assert answer.status == status, f"{answer.status} for {len(target)} bytes of target, {len(fields)} fields"
            assert wire.closed(), "the connection stays open"
            if answer.body.startswith(b"{"):
                assert answer.json()["code"] == code
        assert len(upstream.asked()) == before


def test_larger_heads_are_a_setting(shared_rig, upstream):
    large = shared_rig.gateway(datasette_url=upstream.url, max_head_bytes="128KiB", token=False)
    with Wire(large.port) as wire:
        assert len(forwarded(upstream, wire, target="/mirror?sql=" + "x" * 120_000).target) == 120_012
        assert len(forwarded(upstream, wire, "X-Long: " + "v" * 120_000)["X-Long"]) == 120_000
    with Wire(large.port) as wire:
        wire.ask("GET", "/mirror?sql=" + "x" * 135_000)
        assert wire.answer().status == 414


# -- connections to Datasette -----------------------------------------------------

def test_connections_are_used_again(shared_rig, upstream):
    gateway = shared_rig.gateway(datasette_url=upstream.url, workers=1, token=False)
    upstream.routes["/mirror"] = mirror
    before = upstream.connections
    with Wire(gateway.port) as wire:
        for _ in range(50):
            wire.ask("GET", "/mirror")
            assert wire.answer().status == 200
    assert upstream.connections - before == 1, f"{upstream.connections - before} connections for 50 requests in a row"


def test_an_idle_connection_that_datasette_closes(rig):
    """uvicorn closes after exactly 5 s: at that moment no request may fail."""
    upstream = rig.upstream()

    @upstream.on("/five")
    def answer(exchange):
        exchange.reply(body=b"ok")
        exchange.wire.socket.settimeout(5)

    gateway = rig.gateway(datasette_url=upstream.url, workers=1, token=False)
    failures = []

    def ask(offset):
        with Wire(gateway.port) as wire:
            for _ in range(2):
                wire.ask("POST", "/five", body=b"x")
                status = wire.answer().status
                if status != 200:
                    failures.append(status)
                time.sleep(5 + offset)

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in (-1.1, -0.02, -0.005, 0, 0.005, 0.02, 0.1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, f"requests failed around the idle close: {failures}"


def drop_second(upstream, path):
    """Answers the first request of a connection and drops the connection at the second one."""
    seen = set()

    @upstream.on(path)
    def answer(exchange):
        if id(exchange.wire) in seen:
            exchange.hang_up()
        seen.add(id(exchange.wire))
        exchange.reply(body=b"ok")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_dead_connection_is_replaced_once(rig, method):
    upstream = rig.upstream()
    drop_second(upstream, "/dead")
    gateway = rig.gateway(datasette_url=upstream.url, workers=1, token=False)
    with Wire(gateway.port) as wire:
        for _ in range(5):
            wire.ask(method, "/dead")
            assert wire.answer(to=method).status == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/dead"), ("DELETE", "/dead"), ("GET", "/-/auth-token"), ("GET", "/prefix/-/auth-token")])
def test_what_may_have_acted_is_never_sent_twice(rig, method, path):
    upstream = rig.upstream()
    drop_second(upstream, path)
    gateway = rig.gateway(datasette_url=upstream.url, workers=1, token=False)
    with Wire(gateway.port) as wire:
        for i in range(2):
            wire.ask(method, path, body=b"x" if method == "POST" else b"")
            answer = wire.answer()
            assert answer.status == (502 if i else 200), answer.text
    assert len(upstream.asked(path)) == 2, "the request was sent twice"


# -- the connection of the client --------------------------------------------------

def test_keep_alive(upstream, wire):
    upstream.routes["/mirror"] = mirror
    for i in range(20):
        wire.ask("POST", "/mirror", body=b"%d" % i)
        answer = wire.answer()
        assert answer.body == b"%d" % i and (answer["Connection"] or "").lower() != "close"


def test_pipelining(upstream, wire):
    @upstream.on("/slow")
    def answer(exchange):
        time.sleep(0.2)
        exchange.reply(body=b"slow")

    upstream.routes["/mirror"] = mirror
    one = b"POST /mirror HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + one + b"abc" + one + b"def" + b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [wire.answer().body for _ in range(4)] == [b"slow", b"abc", b"def", b"slow"]


def test_connection_close(upstream, wire):
    upstream.routes["/mirror"] = mirror
    wire.ask("GET", "/mirror", "Connection: close")
    assert (wire.answer()["Connection"] or "").lower() == "close"
    assert wire.closed()


def test_http_1_0(upstream, gateway):
    """The end of the connection is the end of the answer, whatever Datasette's framing."""
    @upstream.on("/chunked")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"one")
        exchange.chunk(b"two")
        exchange.send("0\r\n\r\n")

    for fields in ((), ("Connection: keep-alive",)):
        with Wire(gateway.port) as wire:
            wire.ask("GET", "/chunked", *fields, version="HTTP/1.0")
            answer = wire.answer()
            assert (answer.status, answer.body) == (200, b"onetwo")
            assert answer["Transfer-Encoding"] is None, "HTTP/1.0 has no chunked coding"
            kept = fields and answer["Content-Length"] and (answer["Connection"] or "").lower() == "keep-alive"
            assert kept or wire.closed(), f"the end of the answer cannot be seen: {answer.fields}"
    assert upstream.asked("/chunked")[-1].version == "HTTP/1.1"
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/chunked", host=None, version="HTTP/1.0")
        assert wire.answer().status == 200


def test_expect_100_continue(upstream, wire):
    """A server that does not know it has the head and says nothing: the client is told to go on all the same, when three seconds have passed."""
    upstream.routes["/expected"] = mirror
    began = time.monotonic()
    wire.ask("POST", "/expected", "Expect: 100-continue", "Content-Length: 5")
    until(lambda: upstream.asked("/expected"), "the head is there")
    interim = wire.head()
    assert interim.status == 100, interim.raw
    assert time.monotonic() - began >= HOLD_SECONDS
    wire.send(b"hello")
    answer = wire.answer()
    assert (answer.status, answer.body, answer.interim) == (200, b"hello", [])


def test_expect_100_continue_and_a_body_unasked(upstream, wire):
    """A client need not wait; its body does, when nobody asks for it."""
    came = []

    @upstream.on("/unasked")
    def _(exchange):
        body = exchange.read()
        came.append(time.monotonic())
        exchange.reply(body=body)

    began = time.monotonic()
    wire.ask("POST", "/unasked", "Expect: 100-continue", body=b"hello")
    answer = wire.answer()
    assert (answer.status, answer.body) == (200, b"hello")
    assert came[0] - began >= HOLD_SECONDS


def test_expect_is_refused_without_reading(upstream, gateway):
    """What is too large is answered instead of 100 Continue."""
    with Wire(gateway.port) as wire:
        wire.ask("POST", "/mirror", "Expect: 100-continue", "Content-Length: 999999999999")
        answer = wire.answer()
        assert (answer.status, answer.interim) == (413, [])
        assert wire.closed()
    with Wire(gateway.port) as wire:
        wire.ask("POST", "/mirror", "Expect: 200-maybe", "Content-Length: 5")
        assert wire.answer().status == 417


def test_early_answer(upstream, gateway):
    """Datasette may answer before it has read the body."""
    @upstream.on("/early")
    def answer(exchange):
        exchange.reply("403 Forbidden", body=b"no")
        exchange.hang_up()

    with Wire(gateway.port) as wire:
        wire.ask("POST", "/early", "Content-Length: 50000000")
        try:
            for _ in range(200):
                wire.send(b"x" * 65536)
        except OSError:
            pass
        answer = wire.answer()
        assert (answer.status, answer.body) == (403, b"no")


def test_a_slow_head_is_not_waited_for_for_ever(gateway):
    with Wire(gateway.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        began = time.monotonic()
        while time.monotonic() - began < 60:
            try:
                wire.send(b"x")
            except (OSError, CutOff):
                break
            if not wire.silent(0.25):
                break
        assert time.monotonic() - began < 40, "a head that never ends holds the connection"


def test_many_connections_at_once(upstream, gateway):
    upstream.routes["/mirror"] = mirror
    wires = [Wire(gateway.port) for _ in range(300)]
    try:
        for i, wire in enumerate(wires):
            wire.ask("POST", "/mirror", body=b"%d" % i)
        for i, wire in enumerate(wires):
            assert wire.answer().body == b"%d" % i
    finally:
        for wire in wires:
            wire.close()
    until(lambda: gateway.metrics().get("spritegate_connections") <= 2,
          lambda: f"closed connections are gone; {gateway.metrics().get('spritegate_connections')} are open")
