"""Requests that two parsers could read differently are refused before Datasette sees a byte of them."""
import time

import pytest

import wire as wires
from answers import problem
from rig import until
from wire import Wire


@pytest.fixture(scope="module")
def upstream(shared_rig):
    upstream = shared_rig.upstream()
    upstream.routes["/"] = lambda exchange: exchange.reply(body=exchange.read())
    return upstream


@pytest.fixture(scope="module")
def gateway(shared_rig, upstream):
    return shared_rig.gateway(datasette_url=upstream.url, token=False)


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

# name -> (bytes, status; None: closed without an answer, which is what libmicrohttpd does with a request line that it cannot read)
REFUSED = {
    # framing
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc" + HIDDEN, 400),
    "two equal lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "length list": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "length +3": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "length -1": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "length 0x3": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "length empty": (POST + b"Content-Length: \r\n\r\n", 400),
    "length with blanks": (POST + b"Content-Length: 1 2\r\n\r\nabc", 400),
    "length of 20 digits": (POST + b"Content-Length: 99999999999999999999\r\n\r\nabc", 413),
    "length and chunked": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "chunked and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "coding with vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "empty coding": (POST + b"Transfer-Encoding: \r\n\r\n", 400),
    "hidden in what follows": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN, 400),
    "chunked in 1.0": (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "space before colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "tab before colon": (POST + b"Content-Length\t: 3\r\n\r\nabc", 400),
    # lines
    "folded coding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "folded field": (GET + b"X-F: a\r\n b\r\n\r\n", 400),
    "folded with tab": (GET + b"X-F: a\r\n\tb\r\n\r\n", 400),
    "first line folded": (b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", 400),
    "bare CR in a value": (GET + b"X: a\rb\r\n\r\n", 400),
    "bare CR line end": (b"GET / HTTP/1.1\rHost: a\r\r", 400),
    "bare LF line end": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF before": (b"\n" + GET + b"\r\n", None),
    "two empty lines before": (b"\r\n\r\n" + GET + b"\r\n", None),
    "bare LF in one line": (GET + b"X: a\nY: b\r\n\r\n", 400),
    "NUL in a value": (GET + b"X: a\0b\r\n\r\n", 400),
    "NUL in a name": (GET + b"X\0Y: a\r\n\r\n", 400),
    "control in a value": (GET + b"X: a\x01b\r\n\r\n", 400),
    "DEL in a value": (GET + b"X: a\x7fb\r\n\r\n", 400),
    "space in a name": (GET + b"X Y: a\r\n\r\n", 400),
    "empty name": (GET + b": a\r\n\r\n", 400),
    "no colon": (GET + b"nonsense\r\n\r\n", 400),
    "name with slash": (GET + b"X/Y: a\r\n\r\n", 400),
    "name beyond ASCII": (GET + b"X\xe9: a\r\n\r\n", 400),
    # chunks
    "chunk size 0x3": (POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size +3": (POST + b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size -1": (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size overflow": (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n", 413),
    "chunk longer than said": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n" + HIDDEN, 400),
    "chunk ends with LF": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n" + HIDDEN, 400),
    "chunk line ends with LF": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n" + HIDDEN, 400),
    "chunk size with a blank": (POST + b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400),
    "chunk trailer without colon": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nbad trailer\r\n\r\n" + HIDDEN, 400),
    "chunk at the end with LF": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\n\n" + HIDDEN, 400),
    "chunk size empty": (POST + b"Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", 400),
    # Host
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (GET + b"Host: b\r\n\r\n", 400),
    "two equal Hosts": (GET + b"Host: a\r\n\r\n", 400),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "Host with path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "Host with userinfo": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "Host list": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "Host with a blank": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "Host with a bad port": (b"GET / HTTP/1.1\r\nHost: a:port\r\n\r\n", 400),
    # target, method, version
    "other authority": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "absolute form without path": (b"GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "absolute form in 1.0 without Host": (b"GET http://a/ HTTP/1.0\r\n\r\n", 400),
    "authority form": (b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "asterisk": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no slash": (b"GET hidden HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "fragment": (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two blanks": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank at the end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "blank at the start": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
    "tab between": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", None),
    "one word": (b"hello\r\n\r\n", None),
    "bare CR in the target": (b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space in the target": (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "control in the target": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", None),
    "bytes beyond ASCII in the target": (b"GET /\xc3\xbc HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "method that is no token": (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "method with underscore": (b"DISPATCH_REQUEST / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "endless method": (b"A" * 5000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "lower-case version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), None),
    "endless word": (b"G" * 200_000, None),
    "unknown Expect": (POST + b"Expect: 200-maybe\r\nContent-Length: 3\r\n\r\nabc", 417),
    "Connection: Host": (GET + b"Connection: Host\r\n\r\n", 400),
    "Connection with junk": (GET + b"Connection: a b\r\n\r\n", 400),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", REFUSED)
def test_refused(gateway, upstream, name):
    data, right = REFUSED[name]
    before = len(upstream.asked())
    answers, closed = wires.exchange(gateway.port, data, seconds=12)
    statuses = [answer.status for answer in answers]
    assert statuses == ([right] if right else [])
    assert closed, "the connection stays open after what cannot be trusted"
    seen = [exchange.target for exchange in upstream.asked()[before:]]
    assert "/hidden" not in seen, "a hidden request reached Datasette"
    # a body that turns out broken when it is already streaming may have begun there, but is never complete
    if not name.startswith("chunk "):
        assert not seen, f"Datasette was asked: {seen}"


@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("chunk ")])
def test_broken_chunks_never_look_whole(gateway, upstream, name):
    data, _ = REFUSED[name]
    whole = []
    upstream.routes["/"] = lambda exchange: (exchange.read(), whole.append(exchange.target), exchange.reply())
    try:
        wires.exchange(gateway.port, data, seconds=5)
        assert not whole, "Datasette took a broken body for a whole one"
    finally:
        upstream.routes["/"] = lambda exchange: exchange.reply(body=exchange.read())


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
AND_AGAIN = GET + b"X-Again: 1\r\n\r\n"

# name -> (bytes, body of the answer, what Datasette got: method and framing)
ACCEPTED = {
    "length": (POST + b"Content-Length: 3\r\n\r\nabc", b"abc", "POST length 3"),
    "chunked": (POST + CHUNKED + b"\r\n", b"abc", "POST chunked"),
    "trailers": (POST + b"Trailer: X-T\r\n" + CHUNKED + b"X-T: 1\r\nContent-Length: 9\r\n\r\n", b"abc", "POST chunked"),
    "Chunked": (POST + b"Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc", "POST chunked"),
    "chunk sizes with zeros": (POST + b"Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n000\r\n\r\n", b"abc", "POST chunked"),
    "length with zeros": (POST + b"Content-Length: 0003\r\n\r\nabc", b"abc", "POST length 3"),
    "blanks around a value": (POST + b"Content-Length: \t 3 \t\r\n\r\nabc", b"abc", "POST length 3"),
    "no body": (POST + b"\r\n", b"", "POST"),
    "Host in capitals": (b"GET / HTTP/1.1\r\nHOST: A.example:80\r\n\r\n", b"", "GET"),
    "absolute form": (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"", "GET"),
    "absolute form with default port": (b"GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", b"", "GET"),
    "absolute form, path left out": (b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", b"", "GET"),
    "empty line before": (b"\r\n" + GET + b"\r\n", b"", "GET"),
    "tab in a value": (GET + b"X: a\tb\r\n\r\n", b"", "GET"),
    "bytes beyond ASCII in a value": (GET + b"X: \xc3\xa9\r\n\r\n", b"", "GET"),
    "method in lower case": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", b"", "get"),
    # bodies: what GET, HEAD and OPTIONS have is dropped, and never taken for a request
    **{f"{method}, {framing}": (method.encode() + b" / HTTP/1.1\r\nHost: a\r\n" + fields, b"abc" if passed else b"",
                                f"{method} {framing}" if passed else method)
       for method, passed in (("GET", False), ("HEAD", False), ("OPTIONS", False), ("DELETE", True), ("PATCH", True), ("QUERY", True))
       for framing, fields in (("length 3", b"Content-Length: 3\r\n\r\nabc"), ("chunked", CHUNKED + b"\r\n"))},
    "GET with a request as its body": (GET + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, b"", "GET"),
}


def framing(exchange):
    length = exchange["Content-Length"]
    return exchange.method + (f" length {length}" if length else "") + (" " + exchange["Transfer-Encoding"] if exchange["Transfer-Encoding"] else "")


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(gateway, upstream, name):
    """Answered, and the connection is kept and in step: the next request on it is read as it stands."""
    data, body, got = ACCEPTED[name]
    before = len(upstream.asked())
    with Wire(gateway.port) as wire:
        wire.send(data)
        answer = wire.answer()
        assert (answer.status, answer.body, answer["Connection"]) == (200, body, None), answer.text
        wire.send(AND_AGAIN)
        assert wire.answer().status == 200
    first, second = upstream.asked()[before:]
    assert (framing(first), first.target, first.all("X-T")) == (got, "/", [])
    assert framing(second) == "GET" and second["X-Again"] == "1"


# name -> bytes; answered 200 or 204, then closed
LAST = {
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "HTTP/1.0 without Host": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.0, any Expect": b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 200-maybe\r\nContent-Length: 3\r\n\r\nabc",
    "Connection: close": GET + b"Connection: close\r\n\r\n",
    "Connection: close among others": GET + b"Connection: X-Y, Close\r\n\r\n",
}


@pytest.mark.parametrize("name", LAST)
def test_last_request_of_a_connection(gateway, upstream, name):
    before = len(upstream.asked())
    answers, closed = wires.exchange(gateway.port, LAST[name] + HIDDEN)
    assert [answer.status for answer in answers] == [200] and closed
    assert [exchange.target for exchange in upstream.asked()[before:]] == ["/"], "what came after the last request was read as one"


# method, target -> status, Allow; Datasette hears nothing
ANSWERED_HERE = {
    ("TRACE", "/"): (405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("CONNECT", "a:80"): (405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("CONNECT", "/"): (405, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("TRACE", "/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("CONNECT", "/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("PUT", "/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("post", "/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("TRACE", "http://gateway.test/-/agent/exec"): (405, "POST, GET, HEAD, OPTIONS"),
    ("TRACE", "/-/gateway/health"): (405, "GET, HEAD"),
    ("POST", "/-/gateway/health"): (405, "GET, HEAD"),
    ("OPTIONS", "*"): (204, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ("PUT", "*"): (400, None),
}


@pytest.mark.parametrize(("method", "target"), ANSWERED_HERE)
def test_methods_answered_here(gateway, upstream, method, target):
    before = len(upstream.asked())
    with Wire(gateway.port) as wire:
        wire.ask(method, target)
        answer = wire.answer()
    assert (answer.status, answer["Allow"]) == ANSWERED_HERE[method, target], answer.text
    assert len(upstream.asked()) == before


@pytest.mark.parametrize("size", [b"3;a=b;c", b"3 ; a=\"b\"", b"3;" + b"x" * 20_000])
def test_chunk_extensions_are_ignored_or_refused(gateway, size):
    """Never read as anything else; libmicrohttpd refuses them all."""
    answers, _ = wires.exchange(gateway.port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nabc\r\n0\r\n\r\n" + HIDDEN)
    assert (answers[0].status, answers[0].body) == (200, b"abc") or [answer.status for answer in answers] in ([400], [413])


def test_endless_chunk_lines_leave_nothing_behind(shared_rig, upstream):
    """Whatever becomes of such a request, it ends: for the client, towards Datasette, and in our books."""
    gateway = shared_rig.gateway(datasette_url=upstream.url, token=False)
    wires_open = []
    for size in (30_000, 33_000, 60_000, 100_000, 200_000, 1_000_000):
        for pause in (0, 0.002, 0.05):
            wire = Wire(gateway.port)
            wire.ask("POST", "/", "Transfer-Encoding: chunked")
            time.sleep(pause)
            wire.socket.settimeout(0.2)
            try:
                wire.send(b"3;" + b"x" * size + b"\r\nabc\r\n0\r\n\r\n")
            except OSError:
                pass
            wires_open.append(wire)
    time.sleep(14)      # a body that does not go on is given 10 s
    for wire in wires_open:
        assert wire.everything(1) is not None
        wire.close()
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") == 0, "no request is under way", 5)
    until(lambda: gateway.metrics().get("spritegate_connections") <= 1, "the connections are gone", 5)
    gateway.signal(15)
    assert gateway.wait(15) == 0


def test_problems_of_the_guard(gateway):
    """What libmicrohttpd refuses by itself has bodies of its own; this is ours."""
    for data, status, code in ((POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, "malformed-request"),
                               (GET + b"Host: b\r\n\r\n", 400, "malformed-request"),
                               (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method-not-allowed")):
        answers, _ = wires.exchange(gateway.port, data)
        problem(answers[0], status, code)
        if status == 405:
            assert "TRACE" not in answers[0]["Allow"] and "GET" in answers[0]["Allow"]


def rejected(gateway):
    return gateway.metrics().get("spritegate_http_rejected_total")


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_counted(gateway, name):
    """Once each, whoever refused."""
    data, _ = REFUSED[name]
    before = rejected(gateway)
    wires.exchange(gateway.port, data, seconds=12)
    assert rejected(gateway) == before + 1, f"counted {rejected(gateway) - before} times"


# -- other spellings of our path ----------------------------------------------------

AMBIGUOUS = ["/-%2fagent%2fexec", "/%2d/agent/exec", "/-/agent/%65xec", "/-/agent//exec", "//-/agent/exec", "/-//agent/exec", "/-/./agent/exec",
             "/x/../-/agent/exec", "/-/agent/exec/../exec2/../exec", "/-/AGENT/EXEC", "/-/agent/Exec", "/-/agent/exec;x=1", "/-/agent;a/exec",
             "/-/agent/exec%2f", "/-\\agent\\exec", "/-/agent/%2e/exec", "/-/x/%2e%2e/agent/exec", "/-/agent/exec%2Fx", "/./-/agent/exec", "/-/agent/exec%3bx",
             "/-/agent/exec/%2e%2e/exec", "http://gateway.test//-/agent/exec", "/-/agent/exec%2e/../exec", "/%2F-/agent/exec", "/-/agent/exec;", "/-/agent;/exec",
             "/-%2F%2Fagent/exec", "/-%5cagent%5cexec", "/%2e%2e/-/agent/exec", "/-/agent/%45%58%45%43", "/-/agent//exec/quota", "/-/agent/exec%2fquota",
             "/-/./././agent/exec"]


@pytest.mark.smoke
@pytest.mark.parametrize("path", AMBIGUOUS)
def test_other_spellings_of_our_path(gateway, upstream, path):
    """Neither run nor passed on: 400 ambiguous-path (and 404 below the plain path)."""
    before = len(upstream.asked())
    with Wire(gateway.port) as wire:
        wire.ask("POST", path, "Content-Type: application/json", body=b'{"command": "true"}')
        answer = wire.answer()
    if path.startswith("/-/agent/exec/"):
        assert answer.status in (400, 404), answer.text
    else:
        problem(answer, 400, "ambiguous-path")
    assert len(upstream.asked()) == before, "it reached Datasette"


@pytest.mark.parametrize("path", ["/-/agent/executor", "/-/agent/exe", "/-/agent", "/agent/exec", "/-/agent/x/exec", "/db/-/agent/exec", "/-/agentexec", "/-~2Fagent~2Fexec",
                                  "/-/agent/exec2/../x", "/?path=/-/agent/exec", "/%252d/agent/exec"])
def test_paths_that_only_look_alike_go_to_datasette(gateway, upstream, path):
    with Wire(gateway.port) as wire:
        wire.ask("GET", path)
        assert wire.answer().status in (200, 404)
    assert upstream.asked()[-1].target == path
