"""What HTTP's readers disagree about, as tables: requests, and answers of Datasette, with what the gateway does and where that is written.

`tests/integration/test_strict_*.py` hold the gateway to it, `./tests/run scorecard` shows it beside nginx and HAProxy.
"""
import dataclasses

CLOSED, KEPT = "closed", "kept"

# What the standard asks of a recipient.
REFUSE = "refuse"       # it says that this must be refused, or the grammar does not have it
PASS = "pass"           # it must be taken
EITHER = "either"       # it may be refused; if it is taken, nothing that is hidden in it is
POLICY = "policy"       # the standard is silent: what this gateway does for Datasette's sake


@dataclasses.dataclass(frozen=True)
class Request:
    rule: str           # section of RFC 9110 (9110 …) or RFC 9112
    demand: str
    data: bytes
    status: int | None  # of the gateway's answer; None: closed without one, as libmicrohttpd does with a line it cannot read
    end: str = CLOSED
    arrives: str = ""   # whole at Datasette: "METHOD target framing body"; empty = nothing
    begins: bool = False    # it may begin to arrive there, but never looks whole
    fields: dict = dataclasses.field(default_factory=dict)  # what Datasette gets of these fields
    body: bytes = b""   # of the answer, which is what arrived
    code: str = ""      # of the gateway's problem, where it is not the plain one of the status


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
AGAIN = b"GET /again HTTP/1.1\r\nHost: a\r\nX-Again: 1\r\n\r\n"


def refuse(rule, data, status=400, demand=REFUSE, **more):
    return Request(rule, demand, data, status, **more)


def either(rule, data, status=400, **more):
    return Request(rule, EITHER, data, status, **more)


def policy(rule, data, status=400, **more):
    return Request(rule, POLICY, data, status, **more)


def accept(rule, data, arrives="GET /", end=KEPT, **more):
    body = arrives.encode().split(b" ")[-1] if arrives.endswith("abc") else b""
    return Request(rule, PASS, data, 200, end, arrives, body=body, **more)


def line(text):
    """A request with this request line."""
    return text + b"\r\nHost: a\r\n\r\n"


def post(*fields, body=b"abc"):
    return POST + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def get(*fields):
    return GET + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def host(field):
    return b"GET / HTTP/1.1\r\n" + field + b"\r\n\r\n"


def chunks(data, rule="7.1", status=400, demand=REFUSE):
    """A chunked body that is broken: it may have begun to arrive when that shows."""
    return Request(rule, demand, CHUNKED + data, status, begins=True)


END = b"0\r\n\r\n"

FRAMING = {
    "two lengths": refuse("6.3", post(b"Content-Length: 3", b"Content-Length: 5") + HIDDEN),
    "two equal lengths": either("6.3", post(b"Content-Length: 3", b"Content-Length: 3")),
    "length list": either("6.3", post(b"Content-Length: 3, 3")),
    "length list that differs": refuse("6.3", post(b"Content-Length: 3, 5") + HIDDEN),
    **{f"length {name}": refuse("6.3", post(b"Content-Length: " + value)) for name, value in {
        "+3": b"+3", "-1": b"-1", "0x3": b"0x3", "empty": b"", "with blanks": b"1 2", "with a comma": b"3,", "3.0": b"3.0", "1e1": b"1e1",
        "3 and a letter": b"3a", "in quotes": b"\"3\"",
        "1_0": b"1_0"}.items()},
    "length above 63 bits": refuse("6.3", post(b"Content-Length: 9223372036854775808")),
    "length of 20 digits": refuse("6.3", post(b"Content-Length: 99999999999999999999"), 413),
    "length and chunked": either("6.3", post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=END) + HIDDEN),
    "chunked and length": either("6.3", post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=END) + HIDDEN),
    "length and chunked, more follows": either("6.3", post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=HIDDEN)),
    "length 0 and chunked": either("6.3", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=END) + HIDDEN),
    "length and an unknown coding": refuse("6.3", post(b"Content-Length: 3", b"Transfer-Encoding: xchunked")),
    "chunked twice": refuse("6.1", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=END)),
    "chunked, then another": refuse("6.1", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow", body=END)),
    "another, then chunked": refuse("6.1", post(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", body=END)),
    **{f"coding {name}": refuse("6.1", post(b"Transfer-Encoding: " + value, body=END)) for name, value in {
        "xchunked": b"xchunked", "identity": b"identity", "gzip, chunked": b"gzip, chunked", "chunked, identity": b"chunked, identity",
        "vertical tab": b"\x0bchunked", "empty": b"",
        "chunked, chunked": b"chunked, chunked", "chunk": b"chunk", "in quotes": b"\"chunked\"", "with a parameter": b"chunked;q=1", "chunked,": b"chunked,",
        ", chunked": b", chunked",
        "chunked with a NUL": b"chunked\0", "chunked and junk": b"chunked x", "no-break space": b"\xa0chunked"}.items()},
    "coding in HTTP/1.0": either("6.1", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "coding in HTTP/1.0, with a length": either("6.1", b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "blank before the colon": refuse("5.1", post(b"Transfer-Encoding : chunked", body=END)),
    "tab before the colon": refuse("5.1", post(b"Content-Length\t: 3")),
    "length": accept("6.2", post(b"Content-Length: 3"), "POST / length 3 abc"),
    "length with zeros": accept("6.2", post(b"Content-Length: 0003"), "POST / length 3 abc"),
    "length with blanks around": accept("5.1", post(b"Content-Length: \t 3 \t"), "POST / length 3 abc"),
    "length 0": accept("6.2", post(b"Content-Length: 0", body=b""), "POST / length 0"),
    "underscore twin of a length": policy("9110 5.1", post(b"Content-Length: 3", b"Content_Length: 5"), 200, end=KEPT, arrives="POST / length 3 abc",
        fields={"Content_Length": []}, body=b"abc"),
    "no body": accept("6.3", post(body=b""), "POST /"),
    "chunked": accept("7.1", CHUNKED + b"3\r\nabc\r\n" + END, "POST / chunked abc"),
    "Chunked": accept("7", post(b"Transfer-Encoding: Chunked", body=b"3\r\nabc\r\n" + END), "POST / chunked abc"),
    "coding with blanks around": accept("5.1", post(b"Transfer-Encoding:\t chunked \t", body=b"3\r\nabc\r\n" + END), "POST / chunked abc"),
    "a request as a body": accept("6.3", POST + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, f"POST / length {len(HIDDEN)}", ),
    "a request as the body of GET": accept("9110 9.3.1", GET + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN),
    **{f"{method}, {name}": accept("9110 9.3", method.encode() + b" / HTTP/1.1\r\nHost: a\r\n" + fields, f"{method} / {name} abc" if passed else f"{method} /")
       for method, passed in (("GET", False), ("HEAD", False), ("OPTIONS", False), ("DELETE", True), ("PATCH", True), ("QUERY", True))
       for name, fields in (("length 3", b"Content-Length: 3\r\n\r\nabc"), ("chunked", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))},
}

LINES = {
    "folded coding": either("5.2", post(b"Transfer-Encoding:\r\n chunked", body=END)),
    "folded field": either("5.2", get(b"X-F: a\r\n b")), "folded with a tab": either("5.2", get(b"X-F: a\r\n\tb")),
    "folded length": either("5.2", post(b"Content-Length:\r\n 3")),
    "first line folded": either("2.2", b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n"),
    "first line is a folded coding": refuse("2.2", b"POST / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: a\r\nContent-Length: 5\r\n\r\n" + END + HIDDEN),
    "bare CR in a value": either("2.2", get(b"X: a\rb")), "bare CR as a line's end": either("2.2", b"GET / HTTP/1.1\rHost: a\r\r"),
    "bare CR before a field": either("2.2", post(b"X: a\rTransfer-Encoding: chunked", b"Content-Length: 5", body=END)),
    "two CRs before LF": either("2.2", get(b"X: a\r")), "LF before CR": refuse("2.2", GET + b"X: a\n\rY: b\r\n\r\n"),
    "bare LF as every line's end": either("2.2", b"GET / HTTP/1.1\nHost: a\n\n"), "bare LF before": either("2.2", b"\n" + GET + b"\r\n", None),
    "bare LF in one line": either("2.2", get(b"X: a\nY: b")),
    "bare LF hides a coding": either("2.2", post(b"X: a\nTransfer-Encoding: chunked", b"Content-Length: 5", body=END)),
    "bare LF at the end of the head": either("2.2", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    "two empty lines before": either("2.2", b"\r\n\r\n" + GET + b"\r\n", None),
    "empty line before": accept("2.2", b"\r\n" + GET + b"\r\n"),
    "NUL in a value": refuse("9110 5.5", get(b"X: a\0b")), "NUL in a name": refuse("5.1", get(b"X\0Y: a")),
    "NUL after a name": refuse("5.1", post(b"Content-Length\0: 3")),
    "control in a value": either("9110 5.5", get(b"X: a\x01b")), "DEL in a value": either("9110 5.5", get(b"X: a\x7fb")),
    "vertical tab in a value": either("9110 5.5", get(b"X: a\x0bb")),
    "blank in a name": refuse("5.1", get(b"X Y: a")), "empty name": refuse("5.1", get(b": a")), "no colon": refuse("5", get(b"nonsense")),
    "name with a slash": either("9110 5.1", get(b"X/Y: a")), "name beyond ASCII": either("9110 5.1", get(b"X\xe9: a")),
    "name with a quote": either("9110 5.1", get(b"X\"Y: a")),
    "tab in a value": accept("9110 5.5", get(b"X: a\tb"), fields={"X": ["a\tb"]}),
    "bytes beyond ASCII in a value": accept("9110 5.5", get(b"X: \xc3\xa9"), fields={"X": ["\xc3\xa9"]}),
    "no blank after the colon": accept("5.1", get(b"X:b"), fields={"X": ["b"]}), "colons in a value": accept("5.1", get(b"X: :a:"), fields={"X": [":a:"]}),
}

CHUNKS = {
    **{f"size {name}": chunks(size + b"\r\nabc\r\n" + END) for name, size in {
        "0x3": b"0x3", "+3": b"+3", "-1": b"-1", "empty": b"", "with a blank before": b" 3", "0_3": b"0_3", "in words": b"three", "with a NUL": b"3\0",
        "beyond ASCII": b"\xb3"}.items()},
    "size with a blank after": chunks(b"3 \r\nabc\r\n" + END, demand=EITHER), "size with a tab after": chunks(b"3\t\r\nabc\r\n" + END, demand=EITHER),
    "size overflow": chunks(b"fffffffffffffffff\r\nabc\r\n" + END, status=413), "size overflow to 3": chunks(b"10000000000000003\r\nabc\r\n" + END, status=413),
    "longer than said": chunks(b"3\r\nabcdef\r\n" + END + HIDDEN), "shorter than said": chunks(b"4\r\nabc\r\n" + END + HIDDEN),
    "data ends with LF": chunks(b"3\r\nabc\n" + END + HIDDEN), "data ends with CR": chunks(b"3\r\nabc\r" + END + HIDDEN),
    "data ends with two letters": chunks(b"3\r\nabcXX" + END + HIDDEN),
    "size line ends with LF": chunks(b"3\nabc\r\n" + END, "2.2", demand=EITHER), "size line ends with CR": chunks(b"3\rabc\r\n" + END + HIDDEN),
    "extension ends with LF": chunks(b"3;a\nabc\r\n" + END + HIDDEN, "7.1.1"), "extension with a bare CR": chunks(b"3;a\rb\r\nabc\r\n" + END + HIDDEN, "7.1.1"),
    "last chunk ends with LF": chunks(b"3\r\nabc\r\n0\n\n", "2.2", demand=EITHER),
    "trailer without colon": chunks(b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n" + HIDDEN, "7.1.2"),
    "trailer folded": chunks(b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n", "5.2", demand=EITHER),
    "endless extension": chunks(b"3;" + b"x" * 20_000 + b"\r\nabc\r\n" + END, "7.1.1", demand=EITHER),
    "extension too long": chunks(b"3;" + b"x" * 256 + b"\r\nabc\r\n" + END, "7.1.1", demand=EITHER),
    "extension with a control": chunks(b"3;a\x01\r\nabc\r\n" + END, "7.1.1", demand=EITHER),
    "extension with a NUL": chunks(b"3;a\0\r\nabc\r\n" + END, "7.1.1", demand=EITHER),
    "extension, shorter than said": chunks(b"3;a\r\nab\r\n" + END, "7.1.1"), "extension, longer than said": chunks(b"3;a\r\nabcd\r\n" + END, "7.1.1"),
    "extension after an overflow": chunks(b"fffffffffffffffff;a\r\nabc\r\n" + END, status=413),
    "extension": accept("7.1.1", CHUNKED + b"3;a=b;c\r\nabc\r\n" + END, "POST / chunked abc"),
    "extension in quotes": accept("7.1.1", CHUNKED + b"3 ; a=\"b;\\\"\"\r\nabc\r\n" + END, "POST / chunked abc"),
    "extension of 256 bytes": accept("7.1.1", CHUNKED + b"3;" + b"x" * 255 + b"\r\nabc\r\n" + END, "POST / chunked abc"),
    "extension of the last chunk": accept("7.1.1", CHUNKED + b"3\r\nabc\r\n0;a\r\n\r\n", "POST / chunked abc"),
    "extension of the only chunk": accept("7.1.1", CHUNKED + b"0;a\r\n\r\n", "POST / chunked"),
    "extensions and a trailer": accept("7.1.2", CHUNKED + b"1;a\r\n0\r\n5\t;\r\n12abc\r\n0;a=b\r\nX-T: 1\r\n\r\n", "POST / chunked 012abc", fields={"X-T": []}),
    "trailers": accept("7.1.2", POST + b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n",
        "POST / chunked abc", fields={"X-T": [], "Trailer": []}),
    "sizes with zeros": accept("7.1", CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n", "POST / chunked abc"),
    "capital size": accept("7.1", CHUNKED + b"A\r\n0123456abc\r\n" + END, "POST / chunked 0123456abc"),
}

HOSTS = {
    "no Host": refuse("3.2", b"GET / HTTP/1.1\r\n\r\n"), "two Hosts": refuse("3.2", get(b"Host: b")),
    "two equal Hosts": refuse("3.2", get(b"Host: a")),
    "empty Host": either("3.2", host(b"Host:")), "blank before its colon": refuse("5.1", host(b"Host : a")),
    "a second one folded away": refuse("3.2", host(b"X: y\r\n Host: b")),
    **{f"Host {name}": refuse("3.2", host(b"Host: " + value)) for name, value in {
        "with a path": b"a/b", "with userinfo": b"u@a", "with a query": b"a?b", "with a fragment": b"a#b", "with a blank": b"a b", "with a bad port": b"a:port",
        
        "with two ports": b"a:1:2", "half an address": b"[::1", "an address without brackets": b"::1", "beyond ASCII": b"\xc3\xbc.example",
        "with a backslash": b"a\\b"}.items()},
    "Host with a large port": either("3.2", host(b"Host: a:65536")),
    "Host list": policy("3.2", host(b"Host: a, b")),
    "Host in capitals": accept("9110 4.2.3", host(b"HOST: A.example:80"), fields={"Host": ["A.example:80"]}),
    "Host with an address": accept("3.2", host(b"Host: [2001:db8::1]:8443"), fields={"Host": ["[2001:db8::1]:8443"]}),
    "Host with a dot at its end": accept("3.2", host(b"Host: a.example."), fields={"Host": ["a.example."]}),
    "Host with an empty port": accept("9110 4.2.3", host(b"Host: a:")),
}

TARGETS = {
    "other authority": either("3.2.2", line(b"GET http://b/ HTTP/1.1")),
    "absolute form in 1.0 without Host": either("3.2.2", b"GET http://a/ HTTP/1.0\r\n\r\n"),
    "absolute form with userinfo": either("9110 4.2.4", line(b"GET http://u@a/ HTTP/1.1")),
    "another scheme": either("3.2.2", line(b"GET ftp://a/ HTTP/1.1")), "authority form": either("3.2.3", line(b"GET a:80 HTTP/1.1")),
    "asterisk": either("3.2.4", line(b"GET * HTTP/1.1")),
    "no slash": either("3.2", line(b"GET hidden HTTP/1.1")), "fragment": either("3.2", line(b"GET /#x HTTP/1.1")),
    "two blanks": either("3", line(b"GET  / HTTP/1.1")),
    "blank at the end": either("3", line(b"GET / HTTP/1.1 ")), "blank at the start": either("2.2", b" " + GET + b"\r\n", None),
    "tab between": either("3", line(b"GET\t/ HTTP/1.1"), None),
    "one word": refuse("3", b"hello\r\n\r\n", None), "bare CR in the target": refuse("3", line(b"GET /a\rb HTTP/1.1")),
    "blank in the target": refuse("3.2", line(b"GET / x HTTP/1.1")),
    "control in the target": either("3.2", line(b"GET /\x01 HTTP/1.1")), "NUL in the target": either("3.2", line(b"GET /\0 HTTP/1.1"), None),
    "bytes beyond ASCII in the target": either("3.2", line(b"GET /\xc3\xbc HTTP/1.1")), "empty target": refuse("3", line(b"GET HTTP/1.1")),
    "no target, version follows": refuse("3", line(b"GET  HTTP/1.1")),
    "absolute form": accept("3.2.2", line(b"GET http://a/ HTTP/1.1")),
    "absolute form with the default port": accept("3.2.2", line(b"GET http://a:80/ HTTP/1.1")),
    "absolute form, path left out": accept("3.2.2", line(b"GET http://a HTTP/1.1")),
    "absolute form, path left out before a query": accept("3.2.2", line(b"GET http://a?x HTTP/1.1"), "GET /?x"),
    "absolute form, capitals": accept("9110 4.2.3", line(b"GET HTTP://A/ HTTP/1.1")),
    "dots and slashes as they are": accept("9110 7.7", line(b"GET //x/./../%2F%2e;a=b?c//d HTTP/1.1"), "GET //x/./../%2F%2e;a=b?c//d"),
    "marks as they are": accept("3.2", line(b"GET /a~2Fb,c+d!$&'()*:@[]{}|\\^`\"<>?x?y HTTP/1.1"), "GET /a~2Fb,c+d!$&'()*:@[]{}|\\^`\"<>?x?y"),
    "empty query": accept("9110 4.2.3", line(b"GET /? HTTP/1.1"), "GET /?"),
}

METHODS = {
    "CONNECT": policy("9110 9.3.6", line(b"CONNECT a:80 HTTP/1.1"), 405),
    "TRACE": policy("9110 9.3.8", line(b"TRACE / HTTP/1.1"), 405),
    "not a token": either("9110 9.1", line(b"GE(T / HTTP/1.1")),
    "with an underscore": policy("9110 9.1", line(b"DISPATCH_REQUEST / HTTP/1.1"), 501),
    "endless": policy("9110 9.1", line(b"A" * 5000 + b" / HTTP/1.1"), 501),
    "lower case": policy("9110 9.1", line(b"get / HTTP/1.1"), 200, end=KEPT, arrives="get /"),
    "another": policy("9110 9.1", line(b"PROPFIND / HTTP/1.1"), 200, end=KEPT, arrives="PROPFIND /"), "endless word": refuse("3", b"G" * 200_000, None),
    "TLS": refuse("3", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), None),
}

VERSIONS = {
    "HTTP/1.2": either("9110 2.5", line(b"GET / HTTP/1.2"), 505), "HTTP/1.10": refuse("2.3", line(b"GET / HTTP/1.10")),
    "HTTP/2.0": either("9110 15.6.6", line(b"GET / HTTP/2.0"), 505),
    "HTTP/3.0": either("9110 15.6.6", line(b"GET / HTTP/3.0"), 505), "HTTP/0.9": either("2.3", b"GET /\r\n"),
    "HTTP/01.1": refuse("2.3", line(b"GET / HTTP/01.1")),
    "lower case": either("2.3", line(b"GET / http/1.1")), "HTTP/2 preface": refuse("9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "another protocol": refuse("2.3", line(b"GET / ICAP/1.1")),
    "HTTP/1.0": accept("9.3", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n" + HIDDEN, end=CLOSED),
    "HTTP/1.0 without Host": accept("3.2", b"GET / HTTP/1.0\r\n\r\n" + HIDDEN, end=CLOSED),
}

EXPECTATIONS = {
    "unknown": either("9110 10.1.1", post(b"Expect: 200-maybe", b"Content-Length: 3"), 417),
    "two": either("9110 10.1.1", post(b"Expect: 100-continue, x", b"Content-Length: 3"), 417),
    "any in HTTP/1.0": accept("9110 10.1.1", b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 200-maybe\r\nContent-Length: 3\r\n\r\nabc" + HIDDEN, "POST / length 3 abc",
        end=CLOSED, fields={"Expect": []}),
    "100-Continue": accept("9110 10.1.1", post(b"Expect: 100-Continue", b"Content-Length: 3"), "POST / length 3 abc", fields={"Expect": ["100-Continue"]}),
}

TOKEN = b"sgt_" + b"a" * 16 + b"_" + b"b" * 38
PROTECTED = ("Host", "Content-Length", "Authorization", "Cookie", "Via", "Cache-Control", "X-Forwarded-For", "Fly-Client-IP")

FIELDS = {
    **{f"Connection names {name}": policy("9110 7.6.1", get(b"Connection: close, " + name.encode())) for name in PROTECTED},
    "Connection with junk": either("9110 7.6.1", get(b"Connection: a b")),
    "Connection: close": accept("9.6", get(b"Connection: close") + HIDDEN, end=CLOSED, fields={"Connection": []}),
    "Connection: close among others": accept("9.6", get(b"Connection: X-Y, Close") + HIDDEN, end=CLOSED),
    "named by Connection": accept("9110 7.6.1", get(b"Connection: X-Private, x-other", b"X-Private: 1", b"X-Other: 1", b"X-Public: 1"),
        fields={"X-Private": [], "X-Other": [], "X-Public": ["1"], "Connection": []}),
    "Connection names a coding": accept("9110 7.6.1", post(b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n" + END),
        "POST / chunked abc"),
    "hop by hop": accept("9110 7.6.1", get(b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: trailers", b"Upgrade: websocket",
        b"HTTP2-Settings: x", b"Proxy-Authorization: Basic x"),
                         fields={name: [] for name in ("Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "HTTP2-Settings", "Proxy-Authorization")}),
    "Upgrade to h2c": accept("9110 7.8", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAA"),
        fields={"Upgrade": [], "HTTP2-Settings": []}),
    "Via is begun": accept("9110 7.6.3", get(), fields={"Via": ["1.1 spritegate"]}),
    "Via is continued": accept("9110 7.6.3", get(b"Via: 2 fly.io"), fields={"Via": ["2 fly.io, 1.1 spritegate"]}),
    "Via of HTTP/1.0": accept("9110 7.6.3", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", end=CLOSED, fields={"Via": ["1.0 spritegate"]}),
    "a loop": policy("9110 7.6.3", get(b"Via: 1.1 other, 1.1 spritegate"), 502, end=KEPT, code="loop"),
    "Max-Forwards of OPTIONS, 0": Request("9110 7.6.2", PASS, b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 204, KEPT),
    "Max-Forwards of OPTIONS": accept("9110 7.6.2", b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", "OPTIONS /", fields={"Max-Forwards": ["2"]}),
    "Max-Forwards of GET": accept("9110 7.6.2", get(b"Max-Forwards: 0"), fields={"Max-Forwards": ["0"]}),
    "who the client is": policy("7239 5",
        get(b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 7.7.7.7", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil.example", b"X-Forwarded-Port: 443",
                                              b"X-Forwarded-Prefix: /x", b"Forwarded: for=6.6.6.6;proto=https", b"X-Real-IP: 6.6.6.6",
                                              b"Fly-Client-IP: 6.6.6.6", b"Fly-Forwarded-Port: 1"), 200, end=KEPT, arrives="GET /",
                                fields={"X-Forwarded-For": ["127.0.0.1"], "X-Forwarded-Proto": ["http"], "X-Forwarded-Host": ["a"], "X-Forwarded-Port": ["80"],
                                    "X-Forwarded-Prefix": [], "X-Real-IP": [],
                                        "Fly-Client-IP": [], "Fly-Forwarded-Port": [], "Forwarded": ['for=127.0.0.1;proto=http;host="a";by=_spritegate']}),
    "spelled with underscores": policy("9110 5.1", get(b"X_Forwarded_For: 6.6.6.6", b"Transfer_Encoding: chunked", b"X_Own: 1"), 200, end=KEPT, arrives="GET /",
                                       fields={"X_Forwarded_For": [], "Transfer_Encoding": [], "X_Own": ["1"]}),
    "httpoxy": policy("9110 5.1", get(b"Proxy: http://evil/"), 200, end=KEPT, arrives="GET /", fields={"Proxy": []}),
    "what Fly's proxy obeys": policy("9110 5.1",
        get(b"fly-replay-src: x", b"fly-force-region: fra", b"Fly-Prefer-Region: x", b"fly-force-instance-id: x", b"fly-replay-cache-control: skip"), 200,
        end=KEPT,
                                     arrives="GET /",
                                     fields={name: [] for name in ("fly-replay-src", "fly-force-region", "fly-prefer-region", "fly-force-instance-id",
                                         "fly-replay-cache-control")}),
    "several lines": accept("9110 5.3", get(b"X-Many: 1", b"Cookie: a=1", b"X-Many: 2", b"Cookie: b=2"), fields={"X-Many": ["1", "2"], "Cookie": ["a=1; b=2"]}),
    "tokens of the gateway": policy("9110 11.6.2", get(b"Authorization: Bearer " + TOKEN, b"X-Datasette-Authorization: Bearer dstok_x"), 200, end=KEPT,
        arrives="GET /",
                                    fields={"Authorization": [], "X-Datasette-Authorization": []}),
    "tokens of Datasette": accept("9110 11.6.2", get(b"Authorization: Bearer dstok_x"), fields={"Authorization": ["Bearer dstok_x"]}),
}


def path(target, code="ambiguous-path", status=400, end=CLOSED):
    return policy("9110 7.7", f"POST {target}".encode() + b" HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
                      status, end=end, code=code)


def other(target):
    """Datasette's, though it looks like ours."""
    return accept("9110 7.7", f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), f"GET {target}")


# Another spelling of /-/agent/exec is neither ours nor Datasette's.
PATHS = {
    **{target: path(target) for target in (
        "/-%2fagent%2fexec", "/%2d/agent/exec", "/-/agent/%65xec", "/-/agent//exec", "//-/agent/exec", "/-//agent/exec", "/-/./agent/exec",
        "/x/../-/agent/exec", "/-/AGENT/EXEC", "/-/agent/Exec",
        "/-/agent/exec;x=1", "/-/agent;a/exec", "/-/agent/exec%2f", "/-\\agent\\exec", "/-/agent/%2e/exec", "/-/x/%2e%2e/agent/exec", "/-/agent/exec%2Fx",
        "/./-/agent/exec", "/-/agent/exec%3bx",
        "http://gateway.test//-/agent/exec", "/-/agent/exec%2e/../exec", "/%2F-/agent/exec", "/-/agent/exec;", "/-/agent;/exec", "/-%2F%2Fagent/exec",
        "/-%5cagent%5cexec", "/%2e%2e/-/agent/exec",
        "/-/agent/%45%58%45%43", "/-/agent//exec/quota", "/-/agent/exec%2fquota", "/-/./././agent/exec", "/-/agent/exec%2f..%2fexec")},
    **{target: path(target, "not-found", 404, KEPT) for target in ("/-/agent/exec/../exec2/../exec", "/-/agent/exec/%2e%2e/exec", "/-/agent/exec/",
        "/-/agent/exec/.", "/-/agent/exec//")},
    **{target: other(target) for target in (
        "/-/agent/executor", "/-/agent/exe", "/-/agent", "/agent/exec", "/-/agent/x/exec", "/db/-/agent/exec", "/-/agentexec", "/-~2Fagent~2Fexec",
        "/-/agent/exec2/../x", "/?path=/-/agent/exec",
        "/%252d/agent/exec", "/-/agent/%2565xec", "/-/gateway/healthy", "/-/gateway//health")},
}

GROUPS = {"framing": FRAMING, "lines": LINES, "chunks": CHUNKS, "host": HOSTS, "target": TARGETS, "method": METHODS, "version": VERSIONS,
    "expect": EXPECTATIONS, "fields": FIELDS, "path": PATHS}
REQUESTS = {f"{group}: {name}": row for group, rows in GROUPS.items() for name, row in rows.items()}


# -- answers of Datasette ------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Reply:
    rule: str
    demand: str
    data: bytes             # sent by the upstream, which then closes
    body: bytes | None      # what the client gets, whole; None: 502, or the client's connection is cut if the answer has begun
    status: int = 200
    framing: str | None = None      # Content-Length or Transfer-Encoding that the client sees
    method: str = "GET"
    fields: dict = dataclasses.field(default_factory=dict)


OK = b"HTTP/1.1 200 OK\r\n"
OK_CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = b"Content-Length: 5\r\n\r\nhello"


def broken(rule, data, demand=REFUSE):
    return Reply(rule, demand, data, None)


def fine(rule, data, body=b"hello", framing="5", demand=PASS, **more):
    return Reply(rule, demand, data, body, framing=framing, **more)


BROKEN_HEADS = {
    "two lengths": broken("6.3", OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello"),
    "two equal lengths": broken("6.3", OK + b"Content-Length: 5\r\n" + HELLO, EITHER),
    "length list": broken("6.3", OK + b"Content-Length: 5, 5\r\n\r\nhello", EITHER),
    "length list that differs": broken("6.3", OK + b"Content-Length: 3, 5\r\n\r\nhello"),
    **{f"length {name}": broken("6.3", OK + b"Content-Length: " + value + b"\r\n\r\nhello") for name, value in {
        "empty": b"", "0x5": b"0x5", "-1": b"-1", "in words": b"abc", "+5": b"+5", "of 20 digits": b"99999999999999999999", "5 and a letter": b"5a",
        "with blanks": b"1 5"}.items()},
    "length and chunked": broken("6.1", OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", EITHER),
    "chunked and length": broken("6.1", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n", EITHER),
    **{f"coding {name}": broken("6.1", OK + b"Transfer-Encoding: " + value + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n") for name, value in {
        "xchunked": b"xchunked", "chunked, gzip": b"chunked, gzip", "gzip": b"gzip", "gzip, chunked": b"gzip, chunked", "identity": b"identity",
        "chunked, chunked": b"chunked, chunked"}.items()},
    "chunked twice": broken("6.1", OK + b"Transfer-Encoding: chunked\r\n" + OK_CHUNKED[len(OK):] + END),
    "chunked in HTTP/1.0": broken("6.1", b"HTTP/1.0 200 OK\r\n" + OK_CHUNKED[len(OK):] + b"5\r\nhello\r\n" + END, EITHER),
    "bare LF": broken("2.2", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", EITHER),
    "bare LF in one line": broken("2.2", OK + b"X: a\nY: b\r\n" + HELLO, EITHER),
    "bare CR": broken("2.2", OK + b"X: a\rb\r\n" + HELLO), "NUL": broken("9110 5.5", OK + b"X: a\0b\r\n" + HELLO),
    "NUL in a name": broken("5.1", OK + b"X\0Y: a\r\n" + HELLO), "NUL after a name": broken("5.1", OK + b"Content-Length\0: 3\r\n" + HELLO),
    "control": broken("9110 5.5", OK + b"X: a\x01b\r\n" + HELLO, EITHER),
    "DEL": broken("9110 5.5", OK + b"X: a\x7fb\r\n" + HELLO, EITHER), "folded": broken("5.2", OK + b"X: a\r\n b\r\n" + HELLO, EITHER),
    "first line folded": broken("2.2", OK + b" X: a\r\n" + HELLO),
    "blank before the colon": broken("5.1", OK + b"X : a\r\n" + HELLO, EITHER),
    "blank before the colon of a length": broken("5.1", OK + b"Content-Length : 3\r\n" + HELLO, EITHER),
    "blank in a name": broken("5.1", OK + b"X Y: a\r\n" + HELLO), "empty name": broken("5.1", OK + b": a\r\n" + HELLO),
    "no colon": broken("5", OK + b"nonsense\r\n" + HELLO),
    **{f"version {name}": broken("2.3", value + b" 200 OK\r\n" + HELLO, demand) for name, (value, demand) in {"HTTP/2.0": (b"HTTP/2.0", EITHER),
        "HTTP/3.0": (b"HTTP/3.0", EITHER), "ICY": (b"ICY", REFUSE), "HTTP/11": (b"HTTP/11", REFUSE)}.items()},
    "version HTTP/1.2": broken("2.3", b"HTTP/1.2 200 OK\r\n" + HELLO, EITHER), "HTTP/0.9": broken("2.3", b"<html>hello</html>"),
    "no HTTP": broken("4", b"hello world\r\n\r\n"),
    **{f"status {name}": broken("4", b"HTTP/1.1" + value + b"\r\n" + HELLO) for name,
        value in {"none": b"", "in words": b" abc X", "099": b" 099 X", "20": b" 20 X", "1000": b" 1000 X", "-200": b" -200 X"}.items()},
    **{f"status {name}": broken("9110 15", b"HTTP/1.1 " + value + b" X\r\n" + HELLO, EITHER) for name, value in {"600": b"600", "999": b"999"}.items()},
    "101 unasked": broken("9110 15.2.2", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhello"),
    "11 interim": broken("9110 15.2", b"HTTP/1.1 103 X\r\n\r\n" * 11 + OK + HELLO, EITHER),
    "50 continue": broken("9110 15.2", b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + OK + HELLO, EITHER),
    "101 fields": broken("5", OK + b"".join(b"X-%d: x\r\n" % i for i in range(100)) + HELLO, EITHER),
    "5000 fields": broken("5", OK + b"".join(b"X-%d: x\r\n" % i for i in range(5000)) + HELLO, EITHER),
    "nothing": broken("8", b""), "half a head": broken("8", OK + b"X: " + b"x" * 300),
}

BROKEN_BODIES = {
    "length, cut": broken("8", OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000), "small length, cut": broken("8", OK + b"Content-Length: 10\r\n\r\nabc"),
    "length, nothing comes": broken("8", OK + b"Content-Length: 10\r\n\r\n"), "chunked, nothing comes": broken("8", OK_CHUNKED),
    "cut between chunks": broken("8", OK_CHUNKED + b"5\r\nhello\r\n"), "cut inside a chunk": broken("8", OK_CHUNKED + b"ffff\r\nhello"),
    "cut before the last line": broken("8", OK_CHUNKED + b"5\r\nhello\r\n0\r\n"),
    **{f"chunk {name}": broken("7.1", OK_CHUNKED + b"5\r\nhello\r\n" + data + END, demand) for name, (data, demand) in {
        "size in words": (b"xyz\r\nworld\r\n", REFUSE), "size 0x5": (b"0x5\r\nworld\r\n", REFUSE), "size -5": (b"-5\r\nworld\r\n", REFUSE),
        "size +5": (b"+5\r\nworld\r\n", REFUSE),
        "size empty": (b"\r\nworld\r\n", REFUSE), "size overflow": (b"fffffffffffffffff\r\nworld\r\n", REFUSE),
        "size line ends with LF": (b"5\nworld\r\n", EITHER), "data ends with LF": (b"5\r\nworld\n", REFUSE),
        "longer than said": (b"3\r\nworld\r\n", REFUSE), "shorter than said": (b"6\r\nworld\r\n", REFUSE),
        "extension without end": (b"5;" + b"x" * 300 + b"\r\nworld\r\n", EITHER)}.items()},
    "length as a trailer": broken("7.1.2", OK_CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n", EITHER),
}

UNUSUAL = {
    "no reason": fine("4", b"HTTP/1.1 200\r\n" + HELLO), "empty reason": fine("4", b"HTTP/1.1 200 \r\n" + HELLO),
    "HTTP/1.0": fine("2.3", b"HTTP/1.0 200 OK\r\n" + HELLO),
    "to the end": fine("6.3", OK + b"\r\nhello", framing="chunked"), "HTTP/1.0, to the end": fine("6.3", b"HTTP/1.0 200 OK\r\n\r\nhello", framing="chunked"),
    "chunk extension": fine("7.1.1", OK_CHUNKED + b"5;a=b\r\nhello\r\n" + END),
    "trailers": fine("7.1.2", OK_CHUNKED + b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", fields={"X-T": []}),
    "204 with a length": fine("6.3", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"", None, status=204),
    "204 with a coding": fine("6.3", b"HTTP/1.1 204 No Content\r\n" + OK_CHUNKED[len(OK):], b"", None, status=204),
    "204 with a body": fine("6.3", b"HTTP/1.1 204 No Content\r\n" + HELLO, b"", None, EITHER, status=204),
    "304 with a length": fine("6.3", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", "5", status=304),
    "304 with a body": fine("6.3", b"HTTP/1.1 304 Not Modified\r\n" + HELLO, b"", "5", EITHER, status=304),
    "205 with length 0": fine("9110 15.3.6", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", b"", "0", status=205),
    "HEAD with a length": fine("6.3", OK + b"Content-Length: 5\r\n\r\n", b"", "5", method="HEAD"),
    "HEAD with a body": fine("6.3", OK + HELLO, b"", "5", EITHER, method="HEAD"),
    "HEAD, chunked": fine("6.3", OK_CHUNKED, b"", None, method="HEAD"), "HEAD, neither": fine("6.3", OK + b"\r\n", b"", None, method="HEAD"),
    "103 with a length": fine("6.3", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + OK + HELLO),
    "10 interim": fine("9110 15.2", b"HTTP/1.1 103 X\r\n\r\n" * 10 + OK + HELLO),
    "continue unasked": fine("9110 15.2.1", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + HELLO),
    "100 fields": fine("5", OK + b"".join(b"X-%d: x\r\n" % i for i in range(99)) + HELLO),
    "Connection: close": fine("9.6", OK + b"Connection: close\r\n" + HELLO, fields={"Connection": []}),
    "status 299": fine("9110 15", b"HTTP/1.1 299 X\r\n" + HELLO, status=299),
    "a second answer": fine("9.2", OK + HELLO + OK + b"Content-Length: 6\r\n\r\npoison"), "bytes after it": fine("9.2", OK + HELLO + b"poison"),
    "hop by hop": fine("9110 7.6.1",
        OK + b"Connection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X\r\nX-Public: 1\r\n" + HELLO,
                       fields={"X-Private": [], "Keep-Alive": [], "Proxy-Authenticate": [], "Upgrade": [], "Trailer": [], "X-Public": ["1"]}),
    "what Fly's proxy obeys": fine("9110 5.1", OK + b"fly-replay: app=evil\r\nFly-Replay-Cache: x\r\nAlt-Svc: h3=\":443\"\r\n" + HELLO, demand=POLICY,
        fields={"fly-replay": [], "Fly-Replay-Cache": [], "Alt-Svc": []}),
    "several lines": fine("9110 5.3", OK + b"Set-Cookie: a=1\r\nLink: <a>\r\nSet-Cookie: b=2\r\nlink: <b>\r\n" + HELLO,
        fields={"Set-Cookie": ["a=1", "b=2"], "Link": ["<a>", "<b>"]}),
    "empty date": fine("9110 6.6.1", OK + b"Date:\r\n" + HELLO, demand=EITHER, fields={"Date": [""]}),
    "empty value": fine("9110 5.5", OK + b"X-Empty:\r\n" + HELLO, fields={"X-Empty": [""]}),
    "bytes beyond ASCII": fine("9110 5.5", OK + b"X: \xc3\xa9\r\n" + HELLO, fields={"X": ["\xc3\xa9"]}),
    "two dates": fine("9110 6.6.1", OK + b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nDate: Fri, 02 Jan 2026 00:00:00 GMT\r\n" + HELLO, demand=EITHER,
        fields={"Date": ["Fri, 02 Jan 2026 00:00:00 GMT"]}),
}

REPLIES = {f"{group}: {name}": row for group, rows in {"head": BROKEN_HEADS, "body": BROKEN_BODIES, "unusual": UNUSUAL}.items() for name, row in rows.items()}
