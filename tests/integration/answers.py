"""What an answer of the gateway itself must look like: the JSON of a command that ran, and problems."""
import base64
import pathlib
import re
import uuid

OUTCOMES_THAT_RAN = {"exited", "signaled", "timed_out", "canceled"}
MEMBERS = {"ok", "exec_id", "outcome", "exit_code", "signal", "stdout", "stderr", "encoding", "stdout_bytes", "stderr_bytes",
           "stdout_truncated", "stderr_truncated", "output_check", "recovered", "stdout_lost_bytes", "stderr_lost_bytes", "files", "duration_ms", "sandbox", "timing_ms"}
FILE_ERRORS = {"not_found", "is_directory", "not_regular", "denied", "changed", "not_read"}

KEY = r"[a-z*][a-z0-9_.*-]*"
PARAMETERS = rf"(?:;{KEY}(?:=(?:-?\d+|\"[^\"\\]*\"|:[A-Za-z0-9+/=]*:))?)*"
ITEM = rf'"([^"\\]*)"({PARAMETERS})'
DICTIONARY = re.compile(rf"{KEY}=\d+(?:, {KEY}=\d+)*")


def is_uuid7(text):
    """RFC 9562: canonical text, version 7, variant 10."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        return False
    return str(value) == text and value.version == 7 and value.variant == uuid.RFC_4122


def list_of_strings(field):
    """An RFC 9651 List of Strings with parameters: {string: {parameter: value}}."""
    assert re.fullmatch(rf"{ITEM}(?:, ?{ITEM})*", field), f"not a list of strings with parameters: {field!r}"
    return {name: parameters(text) for name, text in re.findall(ITEM, field)}


def parameters(text):
    values = {}
    for part in filter(None, text.split(";")):
        key, _, value = part.partition("=")
        values[key] = value.strip('"') if value.startswith('"') else int(value)
    return values


def dictionary_of_integers(field):
    assert DICTIONARY.fullmatch(field), f"not a dictionary of integers: {field!r}"
    return {key: int(value) for key, value in (part.split("=") for part in field.split(", "))}


def check_limits(headers):
    """RateLimit, RateLimit-Policy and Exec-Budget (draft-ietf-httpapi-ratelimit-headers-11); returns the first two."""
    policies = list_of_strings(headers["RateLimit-Policy"])
    state = list_of_strings(headers["RateLimit"])
    assert set(state) <= set(policies), f"RateLimit names {set(state)}, RateLimit-Policy {set(policies)}"
    for name, policy in policies.items():
        assert policy.get("q", -1) >= 0, f"{name} has no quota: {headers['RateLimit-Policy']}"
        if name == "concurrency":
            assert policy.get("qu") == "concurrent-requests" and "w" not in policy, policy
        else:
            assert policy.get("w", 0) > 0, policy
    for name, left in state.items():
        assert 0 <= left.get("r", -1), f"{name}: {headers['RateLimit']}"
        assert name != "concurrency" or "t" not in left, headers["RateLimit"]
        assert left.get("t", 0) >= 0, headers["RateLimit"]
    if "Exec-Budget" in headers:    # of tokens with a budget
        members, time, output = set(dictionary_of_integers(headers["Exec-Budget"])), {"limit", "used", "held"}, {"out_limit", "out_used", "out_held"}
        assert members - {"reset"} in (time, output, time | output) and "reset" in members, headers["Exec-Budget"]
    return policies, state


def check_files(files, contents=True):
    """Those that were asked for: whole, or with a reason."""
    for path, found in files.items():
        if set(found) == {"error"}:
            assert found["error"] in FILE_ERRORS, (path, found)
        elif "error" in found:
            assert set(found) == {"error", "bytes"} and found["error"] == "too_large" and found["bytes"] > 0, (path, found)
        elif "text" in found or "base64" in found:
            data = found["text"].encode() if "text" in found else base64.b64decode(found["base64"], validate=True)
            assert contents and len(found) == 2 and found["bytes"] == len(data), (path, found["bytes"], len(data))
        else:
            assert not contents and set(found) == {"bytes"}, (path, found)


class Ran:
    """The answer of a command that ran, checked as a whole."""

    def __init__(self, response):
        assert response.status_code == 200, f"{response.status_code}: {response.text[:2000]}"
        self.response = response
        self.headers = response.headers
        self.json = response.json()
        self.check_members()
        self.check_outcome()
        self.check_streams()
        self.check_headers()

    def __getattr__(self, name):
        try:
            return self.json[name]
        except KeyError:
            raise AttributeError(name) from None

    def check_members(self):
        assert set(self.json) - {"stdout_to"} == MEMBERS, f"members differ: {set(self.json) ^ MEMBERS}"
        assert self.json["ok"] is True, "ok must be true with every 200"
        assert is_uuid7(self.json["exec_id"]), f"exec_id is no UUIDv7: {self.json['exec_id']}"
        assert type(self.json["duration_ms"]) is int and self.json["duration_ms"] >= 0, self.json["duration_ms"]
        assert set(self.json["sandbox"]) == {"tier", "session"}, self.json["sandbox"]
        assert self.json["sandbox"]["tier"] in ("hot", "warm", "cold", "none"), self.json["sandbox"]
        session = self.json["sandbox"]["session"]
        assert session is None or (set(session) == {"name", "created"} and type(session["created"]) is bool), self.json["sandbox"]
        assert set(self.json["timing_ms"]) == {"admit", "claim", "exec"}, self.json["timing_ms"]
        assert all(value >= 0 for value in self.json["timing_ms"].values()), self.json["timing_ms"]
        check_files(self.json["files"])

    def check_outcome(self):
        outcome, code, signal = self.json["outcome"], self.json["exit_code"], self.json["signal"]
        assert outcome in OUTCOMES_THAT_RAN, f"200 with the outcome {outcome}"
        if outcome == "exited":
            assert type(code) is int and 0 <= code <= 255, f"exited with {code!r}"
        else:
            assert code is None, f"{outcome} with an exit code of {code!r}"
        assert signal is None or (outcome == "signaled" and re.fullmatch("SIG[A-Z0-9]+", signal)), f"{outcome} {signal!r}"

    def check_streams(self):
        assert set(self.json["encoding"]) == {"stdout", "stderr"}, self.json["encoding"]
        for stream in ("stdout", "stderr"):
            total, cut = self.json[stream + "_bytes"], self.json[stream + "_truncated"]
            if stream == "stdout" and "stdout_to" in self.json:
                assert self.json[stream] == "", "rows were written and told"
                continue
            assert type(cut) is bool and type(total) is int, f"{stream}: {total!r} {cut!r}"
            if self.json["encoding"][stream] == "base64":
                kept = len(base64.b64decode(self.json[stream], validate=True))
            else:
                assert self.json["encoding"][stream] == "utf-8", self.json["encoding"]
                kept = len(self.json[stream].encode())
            assert cut or kept == total, f"{stream}: {kept} bytes in the answer, {total} counted, not marked as cut"

    def check_headers(self):
        headers = self.headers
        assert headers["Content-Type"] == "application/json", headers["Content-Type"]
        assert headers["Cache-Control"] == "no-store", headers["Cache-Control"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Exec-Id"] == self.json["exec_id"], headers["X-Exec-Id"]
        assert is_uuid7(headers["X-Request-Id"]), headers["X-Request-Id"]
        assert re.fullmatch(r"[a-z]+;dur=[\d.]+(, [a-z]+;dur=[\d.]+)*", headers["Server-Timing"]), headers["Server-Timing"]
        usage = dictionary_of_integers(headers["Exec-Usage"])
        files = sum(found["bytes"] for found in self.json["files"].values() if "error" not in found)
        assert usage["out_bytes"] == self.json["stdout_bytes"] + self.json["stderr_bytes"] + files, usage
        check_limits(headers)

    def bytes(self, stream):
        text = self.json[stream]
        return base64.b64decode(text) if self.json["encoding"][stream] == "base64" else text.encode()


OUR_TYPES = "https://spritegate.invalid/problems/"
QUOTA_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
CAPACITY_TYPE = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
ABUSE_TYPE = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
TYPES = {"quota-exceeded": QUOTA_TYPE, "temporary-reduced-capacity": CAPACITY_TYPE, "abnormal-usage": ABUSE_TYPE}
PAGE = (pathlib.Path(__file__).resolve().parent.parent.parent / "docs/problems.md").read_text(encoding="utf-8")
# What the page tells of each code: its status, type and title.
EXPLAINED = {code: (int(status), uri, title)
             for code, status, uri, title in re.findall(r"^## (\S+)\n\n(\d+), type `(\S+)`: (.+)\.$", PAGE, re.MULTILINE)}


def problem(response, status, code, named=True):
    """Checks a problem (RFC 9457, and what we add); returns its members. `named`: it has a request id."""
    assert response.status_code == status, f"expected {status} {code}, got {response.status_code}: {response.text[:1000]}"
    assert response.headers["Content-Type"] == "application/problem+json", response.headers["Content-Type"]
    assert response.headers["Cache-Control"] == "no-store", response.headers.get("Cache-Control")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    body = response.json()
    assert body["code"] == code, f"expected {code}: {body}"
    assert body["status"] == status, body
    assert body["ok"] is False, body
    assert body["type"] == TYPES.get(code, OUR_TYPES + code), body
    assert EXPLAINED[code] == (status, body["type"], body["title"]), f"docs/problems.md says {EXPLAINED[code]} of {body}"
    assert not named or is_uuid7(body["request_id"]) and body["request_id"] == response.headers["X-Request-Id"], body
    if "retry_after" in body:
        assert str(body["retry_after"]) == response.headers["Retry-After"], f"{body['retry_after']} {response.headers}"
    if status in (429, 503):
        assert re.fullmatch(r"[1-9]\d*", response.headers["Retry-After"]), response.headers.get("Retry-After")
    if status == 401:
        assert response.headers["WWW-Authenticate"].startswith('Bearer realm="exec"'), response.headers
    return body


def unknown(response):
    """502: it may have run."""
    body = problem(response, 502, "outcome-unknown")
    assert body["outcome"] == "unknown" and body["may_have_run"] is True, body
    assert "exit_code" not in body or body["exit_code"] is None, body
    assert response.headers["X-Exec-Id"] == body["exec_id"] and is_uuid7(body["exec_id"]), body
    assert {"stdout", "stderr", "encoding", "stdout_bytes", "stderr_bytes"} <= set(body), body
    return body


def not_started(response, code=None):
    """503: it certainly did not run."""
    body = problem(response, 503, code or response.json().get("code"))
    assert body["code"] in ("not-started", "temporary-reduced-capacity"), body
    assert body["outcome"] == "not_started" and body["may_have_run"] is False, body
    assert response.headers["X-Exec-Id"] == body["exec_id"] and is_uuid7(body["exec_id"]), body
    return body
