"""What is refused before anything runs: status, code, members and headers of every refusal."""
import base64
import json

import pytest

import wire
from answers import problem
from rig import leases

MISSING = 'Bearer realm="exec"'
INVALID = 'Bearer realm="exec", error="invalid_token", error_description="The token is not valid"'


@pytest.fixture(autouse=True)
def nothing_is_held(stack):
    yield
    assert leases(stack.redis) == 0, "a refused request holds a lease"


@pytest.fixture(scope="module")
def starts_before(stack):
    return len(stack.sprites.state()["starts"])


@pytest.fixture(scope="module", autouse=True)
def nothing_was_started(stack, starts_before):
    yield
    assert len(stack.sprites.state()["starts"]) == starts_before, "a refused request was run"


# -- tokens --------------------------------------------------------------------

@pytest.mark.smoke
def test_no_token(stack):
    answer = stack.http.post("/-/agent/exec", json={"command": "true"})
    problem(answer, 401, "missing-token")
    assert answer.headers["WWW-Authenticate"] == MISSING


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Digest x", "sgt_abc", "Token abc"])
def test_other_schemes_are_no_token(stack, value):
    answer = stack.exec(headers={"Authorization": value}, command="true")
    assert answer.status_code == 401 and answer.json()["code"] in ("missing-token", "invalid-token"), answer.text
    assert answer.headers["WWW-Authenticate"] in (MISSING, INVALID)


@pytest.mark.parametrize("query", ["access_token={0}", "a=1&access_token=x", "token={0}"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer {0}"}], ids=["alone", "twice"])
def test_tokens_in_the_query(stack, query, headers):
    """RFC 6750 section 3.1: never in the address, with the field neither."""
    headers = {name: value.format(stack.token) for name, value in headers.items()}
    answer = stack.http.post(f"/-/agent/exec?{query.format(stack.token)}", json={"command": "true"}, headers=headers)
    body = problem(answer, 400, "invalid-authorization")
    assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"] and stack.token not in json.dumps(body)


def wrong_tokens(stack):
    kid, rest = stack.token[4:20], stack.token[21:]
    other = stack.mint()["token"]
    yield "garbage", "abc"
    yield "prefix only", "sgt_"
    yield "another system's", "dstok_" + "a" * 40
    yield "one letter changed", stack.token[:30] + ("A" if stack.token[30] != "A" else "B") + stack.token[31:]
    yield "checksum changed", stack.token[:-1] + ("0" if stack.token[-1] != "0" else "1")
    yield "secret of another token", sealed("sgt_" + kid + "_" + other[21:-6])
    yield "unknown kid", sealed("sgt_" + "Z" * 16 + "_" + rest[:-6])
    yield "too long", stack.token + "0"
    yield "cut", stack.token[:-1]


RECORDS_THAT_REFUSE = {
    "revoked": {"status": "revoked"}, "suspended": {"status": "suspended"}, "expired": {"exp": 1000}, "not yet valid": {"nbf": 10**14},
    "made with another pepper": {"mac": "0" * 64, "pep": "0" * 8}, "broken record": {"conc": "many"}, "limit of a later version": {"later": 1}}


def tokens_with_a_record(stack):
    """Right ones, but for what is in their records."""
    for what, fields in RECORDS_THAT_REFUSE.items():
        minted = stack.mint()
        stack.redis.hset("sg:{g}:k:" + minted["kid"], mapping=fields)
        yield what, minted["token"]


ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def sealed(text):
    """With a right checksum: CRC-32 in six base62 digits."""
    import zlib
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = ALPHABET[digit] + digits
    return text + digits


def test_checksum_is_as_documented(stack):
    assert sealed(stack.token[:-6]) == stack.token, "the token's last six characters are not its CRC-32 in base62"


def test_all_wrong_tokens_are_answered_alike(stack):
    """Nothing tells a stranger how close a guess was."""
    seen = set()
    for what, token in [*wrong_tokens(stack), *tokens_with_a_record(stack)]:
        answer = stack.exec(token=token, command="true")
        body = problem(answer, 401, "invalid-token")
        assert answer.headers["WWW-Authenticate"] == INVALID, what
        assert "RateLimit" not in answer.headers, f"{what}: a stranger learns of limits"
        for member in ("request_id", "instance"):
            body.pop(member, None)
        seen.add((json.dumps(body, sort_keys=True), tuple(answer.headers)))
    assert len(seen) == 1, seen


def test_wrong_tokens_leave_nothing_in_redis(stack):
    before = stack.redis.dbsize()
    for _, token in wrong_tokens(stack):
        stack.exec(token=token, command="true")
    added = stack.redis.dbsize() - before
    assert added <= 1, f"{added} keys more"     # the other token that wrong_tokens() mints


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_scheme_in_any_case_and_several_spaces(stack, scheme):
    answer = stack.exec(headers={"Authorization": f"{scheme} {stack.token}"}, command="", body=b'{"command": 1}')
    problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("lines", [
    ("Authorization: Bearer {0}", "Authorization: Bearer {0}"),
    ("Authorization: Bearer {0}", "Authorization: Basic dXNlcjpwYXNz"),
    ("Authorization: Bearer",),
    ("Authorization: Bearer {0} {0}",),
    ("Authorization: Bearer {0},{0}",),
    ('Authorization: Bearer "{0}"',),
])
def test_authorization_that_is_not_one_token(stack, lines):
    body = b'{"command": "true"}'
    with wire.Wire(stack.port) as connection:
        connection.ask("POST", "/-/agent/exec", *(line.format(stack.token) for line in lines),
                       "Content-Type: application/json", body=body)
        answer = connection.answer()
    problem(answer, 400, "invalid-authorization")
    assert 'error="invalid_request"' in (answer["WWW-Authenticate"] or ""), answer.fields


def test_a_cookie_is_no_token(stack):
    answer = stack.http.post("/-/agent/exec", json={"command": "true"}, headers={"Cookie": "ds_actor=abc"})
    problem(answer, 401, "missing-token")


# -- method, path, media type --------------------------------------------------

@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "PROPFIND"])
def test_other_methods(stack, method):
    answer = stack.http.request(method, "/-/agent/exec", headers={"Authorization": f"Bearer {stack.token}"})
    problem(answer, 405, "method-not-allowed")
    allowed = {word.strip() for word in answer.headers["Allow"].split(",")}
    assert allowed == {"POST", "GET", "HEAD", "OPTIONS"}, allowed


def test_usage_needs_no_token(stack):
    answer = stack.http.get("/-/agent/exec")
    assert answer.status_code == 200 and "POST /-/agent/exec" in answer.text
    head = stack.http.head("/-/agent/exec")
    assert head.status_code == 200 and head.content == b""


def test_options(stack):
    answer = stack.http.options("/-/agent/exec")
    assert answer.status_code == 204 and "POST" in answer.headers["Allow"]
    preflight = stack.http.options("/-/agent/exec", headers={
        "Origin": "https://example.com", "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type"})
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("path", ["/-/agent/exec/", "/-/agent/exec/x", "/-/agent/exec/quota/x", "/-/agent/exec/../exec/y"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_other_paths_below_are_ours(stack, method, path):
    """None of them reaches Datasette."""
    with wire.Wire(stack.port) as connection:
        connection.ask(method, path, f"Authorization: Bearer {stack.token}")
        answer = connection.answer()
    assert answer.status in (400, 404, 405), f"{answer.status} {answer.text}"
    assert answer["Content-Type"] == "application/problem+json", "answered by Datasette"


# body -> status, code; the first two are no command, which shows only when they were read
CHUNKED = {
    "plain": (b"e\r\n{\"command\": 1}\r\n0\r\n\r\n", 422, "invalid-request"),
    "extension": (b"e;a=b\r\n{\"command\": 1}\r\n0;c\r\n\r\n", 422, "invalid-request"),
    "shorter than said": (b"14;a\r\n{\"command\": \"true\"}\r\n0\r\n\r\n", 400, "malformed-request"),
    "extension too long": (b"e;" + b"x" * 300 + b"\r\n{\"command\": 1}\r\n0\r\n\r\n", 400, "malformed-request"),
}


@pytest.mark.parametrize("name", CHUNKED)
def test_chunk_extensions(stack, name):
    body, status, code = CHUNKED[name]
    with wire.Wire(stack.port) as connection:
        connection.ask("POST", "/-/agent/exec", f"Authorization: Bearer {stack.token}", "Content-Type: application/json", "Transfer-Encoding: chunked")
        connection.send(body)
        problem(connection.answer(), status, code, named=code != "malformed-request")


def test_query_is_allowed_and_ignored(stack):
    answer = stack.http.post("/-/agent/exec?command=true", content=b"{}", headers={
        "Authorization": f"Bearer {stack.token}", "Content-Type": "application/json"})
    problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp",
                                        "multipart/mixed; boundary=x", "text/json", "application/json, text/plain"])
def test_other_media_types(stack, media_type):
    headers = {"Authorization": f"Bearer {stack.token}"}
    if media_type:
        headers["Content-Type"] = media_type
    answer = stack.http.post("/-/agent/exec", content=b'{"command": "true"}', headers=headers)
    problem(answer, 415, "unsupported-media-type")
    assert answer.headers["Accept"] == "application/json"


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/json ;x=1"])
def test_media_type_with_parameters(stack, media_type):
    problem(stack.exec(b"{}", headers={"Content-Type": media_type}), 422, "invalid-request")


def test_token_is_asked_for_before_the_media_type(stack):
    problem(stack.http.post("/-/agent/exec", content=b"x", headers={"Content-Type": "text/plain"}), 401, "missing-token")


# -- the body ------------------------------------------------------------------

MALFORMED = {
    "empty": b"", "text": b"hello", "cut": b'{"command": "tr', "two values": b'{"command": "true"} {}', "trailing comma": b'{"command": "true",}',
    "duplicate key": b'{"command": "true", "command": "false"}', "deep duplicate": b'{"command": "true", "env": {"A": "1", "A": "2"}}',
    "not UTF-8": b'{"command": "\xff"}', "lone surrogate": b'{"command": "\\ud800"}', "too deep": b'{"env": ' + b"[" * 40 + b"]" * 40 + b"}",
    "NUL": b'{"command": "a\\u0000b"}', "NaN": b'{"command": "true", "timeout_seconds": NaN}', "comment": b'{"command": "true"} // x',
    "single quotes": b"{'command': 'true'}", "byte order mark": b'\xef\xbb\xbf{"command": "true"}', "huge number": b'{"timeout_seconds": 1e999}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_body_that_is_not_json(stack, body):
    problem(stack.exec(body), 400, "malformed-request")


PLACES = {
    "duplicate": (b'{"command": "true", "env": {"A": "1", "B": "2", "A": "3"}}', "/env/A", "same name"),
    "NUL": (b'{"argv": ["a", "b\\u0000"]}', "/argv/1", "u0000"),
    "NUL in a name": (b'{"command": "true", "env": {"a\\u0000": "x"}}', "/env", "u0000"),
    "number": (b'{"command": "true", "max_output_bytes": 1' + b"0" * 400 + b"}", "/max_output_bytes", "too large"),
    "UTF-8": (b'{"command": "true", "cwd": "/\xff"}', "/cwd", "UTF-8"),
    "cut": (b'{"command": "true", "env": {"A', "/env/A", "ends too early"),
}


@pytest.mark.parametrize(("body", "pointer", "says"), PLACES.values(), ids=PLACES.keys())
def test_malformed_bodies_name_the_place(stack, body, pointer, says):
    found = problem(stack.exec(body), 400, "malformed-request")
    assert found["pointer"] == pointer and says in found["detail"], found
    for word in ("JSON_", "jansson", "allow"):
        assert word not in found["detail"], f"the words of a library: {found['detail']}"


INVALID_FIELDS = {
    "nothing": ({}, ""), "both": ({"command": "true", "argv": ["true"]}, ""), "unknown": ({"command": "true", "shell": "zsh"}, "/shell"),
    "not here yet": ({"command": "true", "tty": True}, "/tty"),
    "command type": ({"command": ["true"]}, "/command"), "command empty": ({"command": ""}, "/command"), "command null": ({"command": None}, "/command"),
    "command too long": ({"command": "x" * 200_000}, "/command"),
    "argv type": ({"argv": "true"}, "/argv"), "argv empty": ({"argv": []}, "/argv"), "argv item": ({"argv": ["echo", 1]}, "/argv/1"),
    "argv program empty": ({"argv": [""]}, "/argv/0"), "argv long item": ({"argv": ["echo", "x" * 200_000]}, "/argv/1"),
    "argv many": ({"argv": ["x"] * 2000}, "/argv"),
    "stdin type": ({"command": "true", "stdin": 5}, "/stdin"), "stdin object": ({"command": "true", "stdin": {"hex": "00"}}, "/stdin"),
    "stdin two": ({"command": "true", "stdin": {"base64": "", "x": 1}}, "/stdin"),
    "stdin base64": ({"command": "true", "stdin": {"base64": "a b="}}, "/stdin/base64"),
    "stdin padding": ({"command": "true", "stdin": {"base64": "YQ"}}, "/stdin/base64"),
    "env type": ({"command": "true", "env": []}, "/env"), "env value": ({"command": "true", "env": {"A": 1}}, "/env/A"),
    "env name": ({"command": "true", "env": {"1A": "x"}}, "/env/1A"), "env dash": ({"command": "true", "env": {"A-B": "x"}}, "/env/A-B"),
    "env equals": ({"command": "true", "env": {"A=B": "x"}}, "/env/A=B"), "env empty name": ({"command": "true", "env": {"": "x"}}, "/env/"),
    "env pointer": ({"command": "true", "env": {"a/b~c": "x"}}, "/env/a~1b~0c"),
    "env reserved": ({"command": "true", "env": {"SPRITEGATE_EXEC_ID": "x"}}, "/env/SPRITEGATE_EXEC_ID"),
    "env many": ({"command": "true", "env": {f"V{i}": "" for i in range(1000)}}, "/env"),
    "cwd type": ({"command": "true", "cwd": 1}, "/cwd"), "cwd relative": ({"command": "true", "cwd": "tmp"}, "/cwd"),
    "cwd empty": ({"command": "true", "cwd": ""}, "/cwd"), "cwd long": ({"command": "true", "cwd": "/" + "x" * 10_000}, "/cwd"),
    "timeout type": ({"command": "true", "timeout_seconds": "5"}, "/timeout_seconds"), "timeout zero": ({"command": "true", "timeout_seconds": 0}, "/timeout_seconds"),
    "timeout negative": ({"command": "true", "timeout_seconds": -1}, "/timeout_seconds"), "timeout boolean": ({"command": "true", "timeout_seconds": True}, "/timeout_seconds"),
    "output type": ({"command": "true", "max_output_bytes": "1"}, "/max_output_bytes"), "output fraction": ({"command": "true", "max_output_bytes": 1.5}, "/max_output_bytes"),
    "output negative": ({"command": "true", "max_output_bytes": -1}, "/max_output_bytes"),
    "array": ([], ""), "string": ("true", ""), "null": (None, ""),
}


@pytest.mark.parametrize(("body", "pointer"), INVALID_FIELDS.values(), ids=INVALID_FIELDS.keys())
def test_fields_that_cannot_be_used(stack, body, pointer):
    found = problem(stack.exec(json.dumps(body).encode()), 422, "invalid-request")
    assert isinstance(found["errors"], list) and found["errors"], found
    for error in found["errors"]:
        assert set(error) == {"pointer", "detail"} and error["detail"], error
    assert pointer in [error["pointer"] for error in found["errors"]], f"{pointer} is not named: {found['errors']}"


def test_every_fault_is_named(stack):
    found = problem(stack.exec(json.dumps({"command": 1, "cwd": "x", "nope": 1, "env": {"A": 1}}).encode()), 422, "invalid-request")
    assert {error["pointer"] for error in found["errors"]} == {"/command", "/cwd", "/nope", "/env/A"}


# -- size ----------------------------------------------------------------------

@pytest.fixture(scope="module")
def small(shared_rig):
    return shared_rig.gateway(exec_max_body_bytes="64KiB")


def test_body_above_the_limit(small):
    body = json.dumps({"command": "true", "stdin": "x" * 70_000}).encode()
    answer = small.exec(body)
    assert problem(answer, 413, "body-too-large")["limit_bytes"] == 65536


def test_body_above_the_limit_is_not_read(small):
    """Refused on its head, and the connection is not used for anything else."""
    with wire.Wire(small.port) as connection:
        connection.ask("POST", "/-/agent/exec", f"Authorization: Bearer {small.token}", "Content-Type: application/json",
                       "Content-Length: 100000000000")
        answer = connection.answer()
        assert answer.status == 413, answer.text
        assert (answer["Connection"] or "").lower() == "close"
        assert connection.closed(), "the connection stays open for the rest of the body"


def test_chunked_body_above_the_limit(small):
    with wire.Wire(small.port) as connection:
        connection.ask("POST", "/-/agent/exec", f"Authorization: Bearer {small.token}", "Content-Type: application/json",
                       "Transfer-Encoding: chunked")
        try:
            for _ in range(100):
                connection.chunk(b" " * 4096)
        except OSError:
            pass
        answer = connection.answer()
    assert answer.status == 413, answer.text
    assert answer.json()["code"] == "body-too-large"


def test_body_just_below_the_limit(small):
    empty = len(json.dumps({"command": 1, "stdin": ""}))
    problem(small.exec(json.dumps({"command": 1, "stdin": "x" * (65536 - empty)}).encode()), 422, "invalid-request")
    problem(small.exec(json.dumps({"command": 1, "stdin": "x" * (65537 - empty)}).encode()), 413, "body-too-large")


def test_chunked_body(stack):
    with wire.Wire(stack.port) as connection:
        connection.ask("POST", "/-/agent/exec", f"Authorization: Bearer {stack.token}", "Content-Type: application/json",
                       "Transfer-Encoding: chunked")
        for piece in (b'{"com', b'mand"', b": 1}"):
            connection.chunk(piece)
        connection.send(b"0\r\n\r\n")
        answer = connection.answer()
    problem(answer, 422, "invalid-request")


def test_standard_input_above_the_token_s_limit(stack):
    token = stack.mint(max_in="1KiB")["token"]
    data = base64.b64encode(b"x" * 2000).decode()
    found = problem(stack.exec(token=token, command="cat", stdin={"base64": data}), 413, "body-too-large")
    assert found["limit_bytes"] == 1024


def test_refusals_keep_the_connection(stack):
    """A refusal of a body that was read costs no new connection."""
    with wire.Wire(stack.port) as connection:
        for _ in range(3):
            connection.send(wire.exec_request(stack.token, b"{}"))
            assert connection.answer().status == 422
