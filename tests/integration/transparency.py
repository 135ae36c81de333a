"""What is asked of the two Datasettes, and what of the answers is compared: status, reason phrase, field lines and their order, the body's
bytes and how it ended. What may differ is in the two tables below, with the reason; docs/decisions/0005-http-edges.md tells it to people.
"""
import email.utils
import hashlib
import json
import re

from twins import HOST, request

# Fields of an answer that are not compared as they stand.
OF_AN_ANSWER = {
    "x-request-id": "ours is added, so that one request has one name in every log",
    "connection": "between two neighbours only (RFC 9110 section 7.6.1)",
    "transfer-encoding": "between two neighbours only; that the framing says the same is checked apart",
    "content-length": "is there too when an answer that came in chunks was complete at once; never a different one",
}

# Fields of a request that Datasette sees differently.
ADDED = {
    "via": "a gateway must say that it is there (RFC 9110 section 7.6.3)",
    "x-forwarded-for": "the client's address, which Datasette would take for ours",
    "x-forwarded-proto": "the client's scheme",
    "x-forwarded-host": "the client's Host", "x-forwarded-port": "and port",
    "forwarded": "the same by RFC 7239",
    "x-request-id": "the name of the request",
}
NOT_PASSED_ON = {
    "connection": "between two neighbours only, and every field that it names", "keep-alive": "the same", "proxy-connection": "the same",
    "te": "the same", "trailer": "the same: trailers end here", "upgrade": "the same, and Datasette has no WebSocket",
    "x-named": "named by Connection in a row below",
    "transfer-encoding": "framing, written anew",
    "proxy": "CGI programs would take it for a setting",
    "x-forwarded-for": "a stranger's word", "x-forwarded-proto": "a stranger's word", "x-real-ip": "a stranger's word",
    "forwarded": "a stranger's word", "fly-client-ip": "a stranger's word", "x-request-id": "the gateway's own is there instead",
    "x_forwarded_for": "another spelling of a stranger's word", "x-datasette-authorization": "is for the gateway's commands",
}


def fields_of(seen):
    kept = []
    for name, value in seen.fields:
        if name.lower() == "date":
            assert email.utils.parsedate_to_datetime(value), f"Date: {value}"
            value = "now"
        if name.lower() == "set-cookie":    # one that is deleted ends now
            value = re.sub(r"expires=[^;]*", "expires=now", value)
        if name.lower() not in OF_AN_ANSWER:
            kept.append((name, value))
    return kept


def framing_agrees(direct, through, method):
    """A length that was told is told again; a new one only with a body, and then the wire has checked that it is right."""
    was, now = direct["Content-Length"], through["Content-Length"]
    if was == now or (was is None and method != "HEAD" and direct.status not in (204, 304)):
        return None
    return f"Content-Length {was} became {now}"


def told(body, not_passed_on=()):
    """What the echo says Datasette was asked."""
    said = json.loads(body)
    said["headers"] = [field for field in said["headers"] if field[0] not in not_passed_on]
    return said


def is_echo(seen):
    return seen.status == 200 and seen.body.startswith(b'{"method": ')


def differences(direct, through, method="GET"):
    """Everything that is not allowed to differ and does."""
    found = [f"{what}: {getattr(direct, what)!r} became {getattr(through, what)!r}" for what in ("version", "status", "reason", "interim", "end")
             if getattr(direct, what) != getattr(through, what)]
    if fields_of(direct) != fields_of(through):
        found.append(f"fields: {fields_of(direct)} became {fields_of(through)}")
    found += filter(None, [framing_agrees(direct, through, method)])
    if is_echo(direct) and is_echo(through):
        was, became = told(direct.body, NOT_PASSED_ON), told(through.body, {**ADDED, **NOT_PASSED_ON})
        if was != became:
            found.append(f"the request: {was} became {became}")
    elif direct.quiet_body != through.quiet_body:
        found.append(f"body: {len(direct.body)} bytes {direct.body[:200]} became {len(through.body)} bytes {through.body[:200]}")
    return found


# -- the table ------------------------------------------------------------------------

ODD = "/odd/a~2Fb~2Ec~7Ed~2525+~C3~A9~27~22~5Bx"
JSON = "Content-Type: application/json"
ETAG = hashlib.md5(bytes(range(256)) * 1000).hexdigest()

PAGES = [
    "/", "/-/", "/-", "/-/versions.json", "/-/settings.json", "/-/actor.json", "/-/databases.json", "/-/plugins.json", "/-/metadata.json",
    "/-/config.json", "/-/allow-debug", "/-/logout", "/-/jump.json?q=s", "/-/threads.json", "/-/auth-token", "/-/auth-token?token=x",
    "/sample", "/sample.json", "/sample/", "/sample/?a=1&b=2", "/sample/-/schema", "/sample?sql=select+1", "/:memory:?sql=select+1", "/_memory",
    "/sample/stations", "/sample/stations.json?_shape=objects", "/sample/stations.json?_shape=array&_nl=on", "/sample/stations.json?_ttl=0",
    "/sample/stations.json?_ttl=100", "/sample/stations?_trace=1", "/sample/stations/1", "/sample/stations/1.json", "/sample/stations/99",
    "/sample/readings?_size=3", "/sample/readings.json?_size=5&_sort_desc=celsius", "/sample/readings.json?_facet=station&_size=1",
    "/sample/readings?_next=100&_size=2", "/sample/readings.csv?_size=20", "/sample/readings.csv?_stream=on&station=3", "/sample/readings.csv?_dl=1&_size=5",
    "/sample/notes?_search=cold", "/sample/notes.json?_search=cold&_labels=on", "/sample/warmest?station=3", "/sample/warmest.json?station=1&_shape=array",
    "/sample/warmest.csv?station=1", "/sample/pairs/a,b.json", "/sample/pairs/a~2Fb,c~2Ed.json", "/sample/pairs/~C3~BC,~2525.json",
    "/sample/pairs/x~2Cy,~7Etilde",
    "/sample/odd+name~2Fwith~2Edots~2C+and+spaces", "/sample/odd+name~2Fwith~2Edots~2C+and+spaces.json?_shape=array", "/sample/latest", "/sample/empty.json",
    "/sample/empty.csv", "/sample/blobs/every+byte.json", "/sample/blobs/every+byte.blob?_blob_column=data", "/sample/blobs/none", "/sample/blobs.csv",
    "/sample/blobs/big.blob?_blob_column=data", "/sample/-/query?sql=select+%27%C3%BC%27+as+u", "/sample/-/query.json?sql=select+1+as+one&_shape=array",
    "/sample/-/query.csv?sql=select+*+from+blobs", "/sample/-/query.json?sql=select+broken+from", "/readonly/stations.json?_shape=arrayfirst",
    "/sample/-/query.json?sql=with+recursive+c(x)+as+(select+1+union+all+select+x%2B1+from+c)+select+count(*)+from+c&_timelimit=50",
    "/sample/-/query.json?sql=select+" + "+".join(["1,"] * 800) + "1",
    # paths as they stand
    ODD, ODD + ".json", ODD + "/1", ODD + "/2.json?_shape=array", "/odd/~252f", "/odd/~252f/a~2Fb.json", "/odd/~252f/~2E~2E.json", "/odd/~252f/a~2Cb",
    "/odd/~252f/~252F.json", "/odd/~252f/~C3~A9+~C3~BC.json", "/odd/~252f/~3F~23~3B~26~3D", "/odd/~252f/", "/odd/%252f", "/odd/a%2Fb", "/odd/wide?_size=1",
    "/odd/many?_size=1&group=g3&_facet=group", "/odd/many.json?_filter_column=note&_filter_op=contains&_filter_value=%22", "/sample/%73tations.json",
    "/%2e%2e/sample", "/../sample", "/x/../sample", "//sample.json", "//evil.example/", "//evil.example/%2e%2e", "/\\evil.example/", "/sample//stations.json",
    "/sample/./stations.json", "/sample/stations.json/", "/sample/stations.json;x=1", "/%00", "/%0d%0aX:%20y", "/%ff%fe", "/a%zzb", "/~", "/+", "/,", "/%",
    "/?",
    "/sample?", "/sample.json?&&=&a=&=b", "/sample.json?a=1;b=2", "/sample.json?a=1&a=2&A=3", "/sample.json?x=%00%ff%zz+~",
    "/sample.json?x=a?b/c:d@e!$'()*,[]{}|\\^`\"<>",
    "/no/such/page", "/no-such.json", "/-/agent", "/-/agent/exe", "/-/agent/executor", "/-/agent/explore/sample", "/-/agent/01ARZ3NDEKTSV4RRFFQ69G5FAV/poll",
    # static files, downloads
    "/-/static/app.css", "/-/static/app.css?_hash=000000000000", "/-/static/../app.css", "/-/static/%2e%2e/%2e%2e/app.py", "/favicon.ico", "/assets/data.bin",
    "/assets/empty.txt", "/assets/page%20%C3%A9.html", "/assets/none", "/frozen.db", "/sample.db", "/frozen/facts.json",
    # the plugin's
    "/-/wire/fields", "/-/wire/cookies", "/-/wire/crash?early=1", "/-/wire/crash", "/-/wire/crash?pieces=0", "/-/wire/crash?length=1",
    "/-/wire/crash?pieces=200&size=5000",
    "/-/wire/crash?pieces=3&gap=0.05", "/-/wire/crash?pieces=3&length=1&gap=0.05", "/-/wire/events?count=20", "/-/wire/late?seconds=0.2",
    *(f"/-/wire/status/{status}" for status in (200, 201, 202, 203, 204, 206, 226, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407,
        408, 409, 410,
                                                411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503,
                                                504, 505, 507, 508, 511, 299, 499, 520, 599)),
    *(f"/-/wire/size/{size}?framing={framing}" for size in (0, 1, 1000, 65536, 300_001) for framing in ("chunked", "length")),
    *(f"/-/wire/packed?coding={coding}" for coding in ("gzip", "none", "br")),
    "/-/wire/size/100000?pieces=1000", "/-/wire/size/100000?pieces=1000&framing=length",
    # long targets at the default setting
    *(f"{page}?sql=select+1+--{tail * 10_000}" for page in ("/", "/sample", "/sample/-/query", "/sample/-/query.json") for tail in ("aaa", "a'\"")),
    # the other pages of a database and of a table, and what its limits say
    *(f"/sample/-/{page}" for page in ("foreign-key-targets", "queries", "queries.json", "execute-write", "query/parameters?sql=select+:a", "create")),
    *(f"/sample/warmest/-/{page}" for page in ("definition", "edit", "none")),
    *(f"/sample/stations/-/{page}" for page in ("fragment", "schema", "insert", "drop")),
    "/sample/stations/1/-/update", "/-/static-plugins/none/app.js", "/odd/many.json?_size=max&_shape=arrays", "/odd/many.json?_size=1001",
    "/sample/-/query.json?sql=select+" + "%2B".join(["1"] * 1100),
    "/-/wire/echo/" + "p" * 30_000, "/-/wire/echo?" + "&".join(f"a{i}={i}" for i in range(3000)),
]

# How the request is spelled: fields, and what Datasette does with them.
FIELDS = {
    "browser": ("User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
                "Accept-Language: fr-CH, fr;q=0.9", "Accept-Encoding: gzip, deflate, br, zstd", "DNT: 1", "Connection: keep-alive",
                "Upgrade-Insecure-Requests: 1",
                "Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none", "Priority: u=0, i", "Referer: http://x/y?z"),
    "cookie": ("Cookie: a=b; ds_actor=nonsense",), "cookies": ("Cookie: a=1",  "X-Between: 1", "X-Many: b", "X-Many: a"),
    "bearer": ("Authorization: Bearer dstok_wrong",), "basic": ("Authorization: Basic YTpi",), "spelling": ("x-LOWER-Upper: a", "ACCEPT: */*"),
    "empty values": ("X-Empty:", "Accept:", "X-Blank:   "), "blanks around": ("X-A: \t a b \t", "X-B:c"), "beyond ASCII": ("X-Latin: caf\xe9 \xc3\xbc",),
    "tab inside": ("X-Tab: a\tb",), "tracing": ("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate: a=b", "baggage: c=d"),
    "conditional": ('If-None-Match: "x"', "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT", "If-Match: *"), "range": ("Range: bytes=0-9", "If-Range: \"x\""),
    "cache": ("Cache-Control: no-cache", "Pragma: no-cache"), "override": ("X-HTTP-Method-Override: DELETE", "X-Original-URL: /x", "X-Rewrite-URL: /y"),
    "hop by hop": ("Connection: close, X-Named", "X-Named: 1", "Keep-Alive: timeout=5", "TE: trailers", "Upgrade: websocket", "Proxy-Connection: close"),
    "upgrade": ("Connection: Upgrade", "Upgrade: h2c"), "many": tuple(f"X-{i}: {i}" for i in range(90)), "30 KB": ("X-Long: " + "v" * 30_000,),
    "identity": ("X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "Fly-Client-IP: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "X-Request-Id: mine"),
    "cors": ("Origin: https://elsewhere.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"),
    "max forwards": ("Max-Forwards: 3",), "proxy": ("Proxy: http://evil.example",), "exec": ("X-Datasette-Authorization: Bearer dstok_x",),
}

# Origin, Sec-Fetch-Site, credentials of a write: Datasette's to judge (with the Host that the client sent).
WRITES = {
    "a script": (), "same origin": (f"Origin: http://{HOST}",), "same origin without port": ("Origin: http://sample.example",),
    "https": (f"Origin: https://{HOST}",),
    "elsewhere": ("Origin: https://evil.example",), "null": ("Origin: null",), "same-origin": ("Sec-Fetch-Site: same-origin", "Origin: https://evil.example"),
    "none": ("Sec-Fetch-Site: none",), "same-site": ("Sec-Fetch-Site: same-site", f"Origin: http://{HOST}"),
    "cross-site": ("Sec-Fetch-Site: cross-site", "Cookie: a=b"),
    "bearer": ("Authorization: Bearer dstok_x", "Origin: https://evil.example"),
    "bearer and cookie": ("Authorization: Bearer dstok_x", "Cookie: a=b", "Origin: https://evil.example"),
}

UPLOADS = {
    "form": (request("POST", "/-/wire/form", "Content-Type: application/x-www-form-urlencoded", body=b"a=1&b=%20&a=2")),
    "multipart": (request("POST", "/-/wire/form", "Content-Type: multipart/form-data; boundary=b", body=(
        b"--b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\nvalue\r\n--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"\xc3\xa9.bin\"\r\n"
        b"Content-Type: application/octet-stream\r\n\r\n" + bytes(range(256)) * 5000 + b"\r\n--b--\r\n"))),
    **{f"{method} echo": request(method, "/-/wire/echo", body=b"some body") for method in ("POST", "PUT", "PATCH", "DELETE", "QUERY", "foo")},
    "empty body": request("POST", "/-/wire/echo", "Content-Length: 0"), "no body": request("POST", "/-/wire/echo"),
    "chunked": request("POST", "/-/wire/echo", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n", length=False),
    "chunked and empty": request("POST", "/-/wire/echo", "Transfer-Encoding: chunked", body=b"0\r\n\r\n", length=False),
    "trailers": request("POST", "/-/wire/echo", "Transfer-Encoding: chunked", "Trailer: X-T", body=b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", length=False),
    "1 MB": request("POST", "/-/wire/echo", body=bytes(range(256)) * 4096),
    "413": request("POST", "/sample/empty/-/insert", JSON, body=b"x" * 2_097_153),
    "not 413": request("POST", "/sample/empty/-/insert", JSON, body=b"x" * 2_097_152),
    "413, chunked": request("POST", "/sample/empty/-/insert", JSON, "Transfer-Encoding: chunked", body=b"200001\r\n" + b"x" * 0x200001 + b"\r\n0\r\n\r\n",
        length=False),
    "not JSON": request("POST", "/sample/empty/-/insert", JSON, body=b"{"),
    "too many rows": request("POST", "/sample/empty/-/insert", JSON, body=b'{"rows": [' + b"{}," * 100 + b"{}]}"),
    "refused unread": request("POST", "/-/wire/refuse", body=b"x" * 1000),
}

SAFE = [page for page in PAGES if "auth-token" not in page and len(page) < 2000]

ROWS = {
    **{f"GET {page[:120]}{f' ({len(page)} bytes)' if len(page) > 120 else ''}": request("GET", page) for page in PAGES},
    **{f"HEAD {page}": request("HEAD", page) for page in SAFE[::4]},
    **{f"OPTIONS {page}": request("OPTIONS", page) for page in SAFE[1:110:6]},
    **{f"{method} {page}": request(method, page, JSON, body=b"{}") for method, page in (
        ("POST", "/sample/stations.json"), ("PUT", "/sample"), ("DELETE", "/sample/stations/1"), ("FOO", "/sample/stations.json"), ("get", "/sample.json"),
        ("PATCH", "/-/versions.json"), ("POST", "/-/agent/exe"), ("POST", "/sample/warmest"), ("BREW", "/no"))},
    **{f"fields: {name}": request("GET", "/-/wire/echo?x=1", *fields) for name, fields in FIELDS.items()},
    **{f"page with {name}": request("GET", "/sample/stations.json?_size=1", *fields) for name, fields in FIELDS.items()},
    **{f"style sheet with {name}": request("GET", "/assets/data.bin", *fields) for name,
        fields in FIELDS.items() if name in ("cookie", "conditional", "range", "cors")},
    **{f"preflight of {page}": request("OPTIONS", page, *FIELDS["cors"]) for page in ("/sample.json", "/sample/empty/-/insert", "/-/wire/echo", "/no.json")},
    **{f"write: {name}": request("POST", "/sample/empty/-/insert", JSON, *fields, body=b'{"row": {"text": "x"}}') for name, fields in WRITES.items()},
    **{f"Host {host}": request("GET", "/odd/many.json?_size=1", host=host) for host in ("a.example", "a.example:80", "A.Example:1", "127.0.0.1", "[::1]:8080",
        "[2001:db8::1]", "localhost:8001")},
    **{f"upload: {name}": data for name, data in UPLOADS.items()},
    "304": request("GET", "/assets/data.bin", f'If-None-Match: "{ETAG}"'), "304 to HEAD": request("HEAD", "/assets/data.bin", f'If-None-Match: "{ETAG}"'),
    "not 304: weak": request("GET", "/assets/data.bin", f'If-None-Match: W/"{ETAG}"'), "range of a download": request("GET", "/frozen.db", "Range: bytes=0-99"),
    "body of a GET": request("GET", "/sample.json", body=b"ignored"),
}


def method_of(data):
    return data.split(None, 1)[0].decode()
