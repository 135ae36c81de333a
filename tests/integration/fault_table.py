"""What the caller of POST /-/agent/exec is answered under each fault of the emulator, one row for each fault and variant.

`strikes` says whom: "command" is one hot Sprite whose command is asked for, and its end; "waiting" the same where the command is told to a program
that was started ahead of it (POOL_AHEAD, the default); "socket" the same as the first of a Sprite without a control
socket, where the handshake of /exec asks for the command; "supply" is every Sprite, of a gateway that
keeps none and has to make one now; "restore" is every Sprite of a gateway that has to restore them, since it may create few.
"""
import dataclasses
import typing

COMMAND = "echo output; sleep 0.1; exit 7"
SLEEPER = "echo output; sleep 20; exit 7"
TWO_PIECES = "echo output; sleep 2; exit 7"      # the output is seen before the report is made, on a slow machine too
PRINT = "seq 1000000 | head -c {}"
NUMBERS = "".join(f"{i}\n" for i in range(1, 1000001))
CREATIONS = 6           # a minute, where Sprites are restored
SUPPLY = {"pool_hot": 0, "pool_max": 2}


@dataclasses.dataclass(frozen=True)
class Row:
    fault: str
    variant: str
    parameters: dict
    strikes: str
    answer: dict
    request: dict = dataclasses.field(default_factory=dict)
    settings: dict = dataclasses.field(default_factory=dict)
    also: typing.Sequence = ()      # more faults, (name, parameters), for a variant that one alone cannot show
    hits: bool = True               # False: it cannot meet a command, and does not

    def __str__(self):
        return f"{self.fault}: {self.variant}" if self.variant else self.fault


# -- the answers

ANYTHING = "anything"


def exited(stdout="output\n", code=7, tier="hot", **more):
    return {"status": 200, "code": None, "outcome": "exited", "exit_code": code, "may_have_run": None, "retry_after": None, "tier": tier,
            "stdout": stdout, "check": "counted", "starts": 1, **more}


def timed_out(stdout):
    """Its end was not seen either."""
    return exited(stdout, None, outcome="timed_out", check="none")


def unknown(stdout="output\n", starts=1):
    return {"status": 502, "code": "outcome-unknown", "outcome": "unknown", "exit_code": None, "may_have_run": True, "retry_after": None,
            "tier": None, "stdout": stdout, "check": None, "starts": starts}


def not_started(code="not-started", retry_after=(1, 60)):
    """Retry-After is one of these seconds."""
    return {"status": 503, "code": code, "outcome": "not_started", "exit_code": None, "may_have_run": False, "retry_after": retry_after,
            "tier": None, "stdout": None, "check": None, "starts": 0}


FULL = not_started("temporary-reduced-capacity", (1, 70))
REFUSED = not_started()
COLD = exited(tier="cold")


# -- the rows

def command(fault, answer, variant="", request=None, **parameters):
    return Row(fault, variant, parameters, "command", answer, {"command": COMMAND, **(request or {})})


def socket(fault, answer, variant, request=None, **parameters):
    return Row(fault, f"{variant} of /exec", parameters, "socket", answer, {"command": COMMAND, **(request or {})})


def waiting(fault, answer, variant="", request=None, **parameters):
    return Row(fault, f"{variant} of one that was waited for".strip(), parameters, "waiting", answer, {"command": COMMAND, **(request or {})})


def nothing(fault, variant="", **parameters):
    """It has no occasion."""
    return Row(fault, variant, parameters, "command", exited(), {"command": COMMAND}, hits=False)


def deletion(fault, variant="of the deletion", count=2, **parameters):
    """The caller has been answered before; the Sprite is destroyed all the same."""
    return command(fault, exited(), variant, count=count, match={"method": "DELETE"}, **parameters)


def supply(fault, answer, variant, also=(), settings=None, request=None, **parameters):
    return Row(fault, variant, parameters, "supply", answer, {"command": COMMAND, **(request or {})},
               {**SUPPLY, "pool_wait_seconds": 1 if answer["status"] == 503 else 10, **(settings or {})}, also)


def restore(fault, variant="", **parameters):
    """The caller has been answered before. With a count the restore succeeds in the end; else the Sprite is not used again, and the next
    command finds another.
    """
    return Row(fault, variant or "of a Sprite that is to be used again", parameters, "restore", exited(ANYTHING, tier=ANYTHING),
               {"command": "hostname; exit 7"}, {"pool_hot": 0, "pool_warm": 1, "pool_creates_per_minute": CREATIONS, "pool_recycle": 1, "pool_wait_seconds": 15})


def at(path, method=None):
    return {"path": path, **({"method": method} if method else {})}


CREATE, POLICY, CONTROL, EXEC = at("/v1/sprites", "POST"), at("*/policy/network"), at("*/control"), at("*/exec")
NO_CONTROL = ("false_404", {"match": CONTROL})      # each command gets a socket of its own, on /exec
RECYCLE = {"pool_recycle": 1}

ON_COMMANDS = [
    command("cut_before_start", unknown("", starts=0)),
    command("cut_after_start", unknown("")),
    command("cut_before_output", unknown("")),
    command("cut_after_output", unknown()),
    command("cut_before_exit", unknown()),
    command("cut_after_exit", exited()),
    *(command(fault, answer, f"with a close frame of {code}", close=code) for code in (1000, 1011) for fault, answer in {
        "cut_before_start": unknown("", starts=0), "cut_after_start": unknown(""), "cut_before_output": unknown(""), "cut_after_output": unknown(),
        "cut_before_exit": unknown(), "cut_after_exit": exited()}.items()),
    command("cut_mid_frame", unknown("out"), "of output", {"command": TWO_PIECES}),
    command("cut_mid_frame", unknown(""), "of the report", {"command": "exit 7"}),
    command("cut_mid_frame", unknown(), "of the exit", on="exit"),
    command("cut_mid_frame", unknown(""), "of the exit, with no output", {"command": "exit 7"}, on="exit"),
    command("duplicate_exit", exited()),
    command("duplicate_exit", exited(), "with another code", code=0),
    command("no_exit_code", unknown()),
    command("early_exit", exited("one\ntwo\n"), request={"command": "echo one; sleep 0.1; echo two; exit 7"}),
    command("late_output", exited(check="verified"), "of the report", {"command": TWO_PIECES}, count=1),
    command("late_output", exited(check="recovered"), "of everything", count=1, pieces=2),
    command("stall", exited(), "for a moment", delay_ms=300),
    command("stall", timed_out(""), "past the timeout", {"timeout_seconds": 0.5}, delay_ms=60000),
    command("stall", exited(), "of the exit, for a moment", delay_ms=300, on="exit"),
    command("stall", timed_out("output\n"), "of the exit, past the timeout", {"timeout_seconds": 0.5}, delay_ms=60000, on="exit"),
    command("blackhole", exited(), "for a moment", delay_ms=300),
    command("blackhole", exited(), "from the exit on, for a moment", delay_ms=300, on="exit"),
    command("blackhole", timed_out("output\n"), "from the exit on, past the timeout", {"timeout_seconds": 0.5}, delay_ms=60000, on="exit"),
    command("blackhole", timed_out(""), "past the timeout", {"timeout_seconds": 0.5}, delay_ms=60000),
    command("blackhole", unknown("", starts=0), "when the command is asked for", {"timeout_seconds": 0.5}, on="start"),
    command("blackhole", unknown(""), "until the connection is taken for dead", {"timeout_seconds": 100}, delay_ms=100_000),
    command("fast_output", exited(), "with no history", history=0, delay_ms=5000),
    command("op_error", COLD, "op.busy, so it is run elsewhere"),
    command("op_error", COLD, "op.not_found, so it is run elsewhere", code="op.not_found"),
    command("op_error", unknown("", starts=0), "of a code that nobody knows", code="op.internal"),
    command("op_error", unknown(""), "after the acknowledgement", acknowledged=True),
    command("fast_output", exited(), "of which nothing comes", closed=True, delay_ms=5000),
    command("slow_drip", exited(), bytes=1),
    command("lose_bytes_above", exited("out", check="failed"), "of so little that nothing can be measured", bytes=3),
    command("lose_bytes_above", exited(NUMBERS[:600_000], 0, check="recovered"), "above 512 KiB, of a default request", {"command": PRINT.format(600_000)}),
    command("lose_bytes_above", exited(NUMBERS[:4 << 20], 0, check="recovered"), "above 32 KiB of 4 MiB",
            {"command": PRINT.format(4 << 20), "max_output_bytes": 4 << 20, "timeout_seconds": 60}, bytes=32 << 10),
    command("pause_under_socket", unknown(), request={"command": SLEEPER}, on="start", delay_ms=2000),
    command("kill_vm", unknown(), request={"command": SLEEPER}, delay_ms=2000),
]

# Nothing says that it has started but its output. Its start cannot be refused any more, and nothing of its output can come before somebody listens.
ON_WAITING = [
    waiting("cut_before_start", unknown("", starts=0)),
    waiting("cut_before_start", unknown("", starts=0), "with a close frame", close=1011),
    waiting("cut_after_start", unknown("")),
    waiting("cut_before_output", unknown("")),
    waiting("cut_after_output", unknown()),
    waiting("cut_before_exit", unknown()),
    waiting("cut_after_exit", exited()),
    waiting("cut_mid_frame", unknown(""), "of the exit, with no output", {"command": "exit 7"}, on="exit"),
    waiting("duplicate_exit", exited(), "with another code", code=0),
    waiting("no_exit_code", unknown()),
    waiting("late_output", unknown(""), "of everything", count=1, pieces=2),
    waiting("stall", unknown(""), "past the timeout", {"timeout_seconds": 0.5}, delay_ms=60000),
    waiting("stall", timed_out("output\n"), "of the exit, past the timeout", {"timeout_seconds": 0.5}, delay_ms=60000, on="exit"),
    waiting("blackhole", unknown("", starts=0), "when it is asked for", {"timeout_seconds": 0.5}, on="start"),
    waiting("lose_bytes_above", exited("out", check="failed"), "of so little that nothing can be measured", bytes=3),
    waiting("pause_under_socket", unknown(), request={"command": SLEEPER}, on="start", delay_ms=2000),
    waiting("kill_vm", unknown(), request={"command": SLEEPER}, delay_ms=2000),
    *(Row(fault, "nothing waits for such a command", parameters, "waiting", exited(), {"command": COMMAND}, hits=False)
      for fault, parameters in (("fast_output", {"delay_ms": 5000}), ("op_error", {}))),
]

# Of the messages of a command: op.ack, debug, session_info, exit, op.complete.
FIELDS = {"type": unknown(""), "id": exited(), "args": exited(), "ok": exited(), "exit_code": exited(), "exitCode": exited(), "msg": exited(),
          "pid": exited(), "session_id": exited(), "command": exited()}
ON_MESSAGES = [command(fault, answer, f"of {field}", field=field) for fault in ("wrong_type", "missing_field") for field, answer in FIELDS.items()]

ON_DELETIONS = [
    deletion("delete_500"),
    deletion("delete_500", "but deleted", deleted=True),
    deletion("false_404", count=1),
    deletion("latency", ms=300),
    *(deletion("http_error", f"{status} of the deletion", status=status, count=1) for status in (409, 429, 500, 502, 503)),
    deletion("http_error", "500 after the deletion", status=500, after=True, count=1),
    deletion("cut_request"),
    deletion("cut_request", "after the deletion", after=True),
    deletion("clock_skew"),
]

WITHOUT_OCCASION = [
    nothing("merged_frames"),           # only commands by POST are answered so
    nothing("checkpoint_error"),        # without POOL_RECYCLE there is no checkpoint
    nothing("restore_error"),
    nothing("restore_nothing"),
    nothing("cut_lines"),
]

ON_CREATIONS = [
    supply("create_429", FULL, "always"),
    supply("create_429", COLD, "once", count=1),
    supply("create_429", COLD, "once, the clock is off", also=[("clock_skew", {"seconds": -7200})], count=1),
    supply("create_500", REFUSED, "always"),
    supply("create_500", REFUSED, "always, but created", created=True),
    supply("create_500", COLD, "once", count=1),
    supply("create_500", COLD, "once, but created", count=1, created=True),
    supply("create_hang", COLD, "for a moment", delay_ms=500, count=1),
    supply("create_hang", REFUSED, "for too long", delay_ms=10_000),
    supply("latency", COLD, "of a moment", ms=100),
    supply("latency", COLD, "uniform", distribution="uniform", ms=60, spread_ms=40),
    supply("latency", COLD, "normal", distribution="normal", ms=60, spread_ms=30),
    supply("latency", COLD, "exponential", distribution="exponential", ms=60),
    supply("latency", COLD, "pareto", distribution="pareto", ms=30, max_ms=500),
    supply("latency", REFUSED, "of creations", ms=10_000, match=CREATE),
    *(supply("http_error", COLD, f"{status} of a creation", status=status, count=1, match=CREATE) for status in (404, 409, 500, 502, 503, 504)),
    supply("http_error", FULL, "429 of a creation: too many are running", status=429, count=1, match=CREATE),
    *(supply("http_error", REFUSED, f"{status} of every creation", status=status, match=CREATE) for status in (401, 403, 500)),
    supply("http_error", COLD, "500 after a creation", status=500, after=True, count=1, match=CREATE),
    supply("cut_request", COLD, "of a creation", count=1, match=CREATE),
    supply("cut_request", COLD, "after a creation", after=True, count=1, match=CREATE),
    supply("cut_request", REFUSED, "of every creation", match=CREATE),
    *(supply(fault, COLD, f"of {field} of a creation", field=field, count=1) for fault in ("wrong_type", "missing_field") for field in ("name", "status")),
    supply("clock_skew", COLD, "an hour ahead"),
    supply("clock_skew", COLD, "an hour behind", seconds=-3600),
]

ON_PREPARATIONS = [
    supply("starting_503", COLD, "once", retry_after_seconds=1, count=1),
    supply("starting_503", REFUSED, "always"),
    supply("false_404", COLD, "of the policy, twice", count=2, match=POLICY),
    supply("false_404", REFUSED, "of the policy", match=POLICY),
    supply("false_404", COLD, "of the control socket, once", count=1, match=CONTROL),
    supply("false_404", COLD, "of the control socket", match=CONTROL),
    *(supply("http_error", COLD, f"{status} of the policy, once", status=status, retry_after_seconds=1, count=1, match=POLICY)
      for status in (404, 429, 500, 502, 503)),
    supply("http_error", REFUSED, "500 of the policy", status=500, match=POLICY),
    # No creation is held against these. The first says that no Sprite may be prepared, of the second none was ready in time.
    supply("http_error", FULL, "429 of the policy: too many are running", status=429, match=POLICY),
    supply("http_error", REFUSED, "429 of the policy: too many requests", status=429, limit="requests", match=POLICY),
    supply("http_error", COLD, "429 of the policy: too many requests, once", status=429, limit="requests", retry_after_seconds=1, count=1,
           match=POLICY),
    supply("http_error", COLD, "429 of the control socket, once", status=429, retry_after_seconds=1, count=1, match=CONTROL),
    supply("http_error", REFUSED, "429 of the control socket", status=429, match=CONTROL),
    supply("http_error", COLD, "502 of the control socket, once", status=502, count=1, match=CONTROL),
    supply("http_error", REFUSED, "502 of the control socket", status=502, match=CONTROL),
    supply("cut_request", COLD, "of the policy, once", count=1, match=POLICY),
    supply("cut_request", REFUSED, "of the control socket", match=CONTROL),
    supply("wrong_type", REFUSED, "of the policy's rules", field="rules"),
    supply("missing_field", REFUSED, "of the policy's rules", field="rules"),
    supply("pause_under_socket", COLD, "once, when it opens", on="open", delay_ms=0, count=1),
    supply("kill_vm", COLD, "under the first command", delay_ms=0, count=1),
    *(supply(fault, COLD, "under the first command", count=1)
      for fault in ("cut_before_start", "cut_after_start", "cut_before_exit", "cut_mid_frame", "no_exit_code")),
    # By then it may count as prepared, so that it is found again and woken.
    supply("cut_after_exit", exited(tier=ANYTHING), "under the first command", count=1),
    *(supply(fault, REFUSED, "under every first command") for fault in ("cut_before_start", "cut_after_start", "cut_before_exit", "no_exit_code")),
    supply("stall", REFUSED, "under every first command", delay_ms=60_000),
    supply("blackhole", REFUSED, "under every first command"),
    supply("blackhole", REFUSED, "of every control socket", on="open"),
    supply("blackhole", COLD, "of a control socket, for a moment", on="open", delay_ms=500, count=1),
    supply("op_error", COLD, "of a first command", count=1),
    supply("op_error", REFUSED, "of every command"),
    supply("fast_output", COLD, "of first commands", history=0, delay_ms=100),
    supply("fast_output", COLD, "of first commands of which nothing comes", closed=True, delay_ms=100),
    *(supply(fault, COLD, "of a first command, once: the shim is brought again", bytes=3, count=1) for fault in ("lose_bytes_above", "lose_input_above")),
    *(supply(fault, exited(tier="cold", check="none"), "of a first command: whether the shim can be run is not known", bytes=3, count=2)
      for fault in ("lose_bytes_above", "lose_input_above")),
    supply("lose_bytes_above", exited(NUMBERS[:600_000], 0, "cold", check="unverified"), "of a first command, and then much comes",
           request={"command": PRINT.format(600_000)}, bytes=0, count=2),
    supply("checkpoint_error", COLD, "of a Sprite that may be restored, once", settings=RECYCLE, count=1),
    supply("checkpoint_error", REFUSED, "of a Sprite that may be restored", settings=RECYCLE),
    supply("false_404", COLD, "of a checkpoint, three times", settings=RECYCLE, count=3, match=at("*/checkpoint")),
    supply("cut_lines", COLD, "of a checkpoint, once", settings=RECYCLE, count=1),
]

# What is certainly not started is run elsewhere, in a Sprite that is made then.
ON_EXEC_SOCKETS = [
    socket("http_error", COLD, "500 by the agent", status=500, match=EXEC),
    *(socket("http_error", unknown("", starts=0), str(status), status=status, match=EXEC) for status in (502, 504)),
    *(socket("http_error", COLD, str(status), status=status, match=EXEC) for status in (404, 429, 503)),
    socket("false_404", COLD, "404", match=EXEC),
    socket("cut_request", unknown("", starts=0), "in place of the handshake", match=EXEC),
    socket("blackhole", unknown("", starts=0), "after the handshake", {"timeout_seconds": 0.5}, on="start"),
    *(socket("missing_field", exited(), field, field=field) for field in ("type", "session_id")),
    socket("cut_mid_frame", unknown(), "in the exit", on="exit"),
    socket("cut_before_start", unknown("", starts=0), "before the start"),
    supply("cut_request", COLD, "of one /exec", also=[NO_CONTROL], count=1, match=EXEC),
    supply("http_error", COLD, "503 of one /exec", also=[NO_CONTROL], status=503, count=1, match=EXEC),
]

RESTORE = at("*/restore")
ON_RESTORES = [
    restore("restore_error"),
    restore("restore_nothing"),
    restore("restore_nothing", "but what runs is begun anew", restart=True),
    restore("cut_lines", match=RESTORE),
    restore("false_404", "of the restore, twice", count=2, match=RESTORE),
    *(restore("http_error", f"{status} of the restore", status=status, match=RESTORE) for status in (401, 500)),
    restore("http_error", "503 of the restore, twice", status=503, retry_after_seconds=1, count=2, match=RESTORE),
    restore("cut_request", "of the restore", match=RESTORE),
]

# Asked for once more as NDJSON, one of each kind of course.
STREAMED = {
    "cut_before_start", "cut_after_output", "cut_after_exit", "cut_mid_frame: of output", "cut_mid_frame: of the exit", "duplicate_exit: with another code",
    "no_exit_code", "early_exit", "late_output: of the report", "late_output: of everything", "stall: of the exit, past the timeout",
    "op_error: op.busy, so it is run elsewhere", "op_error: after the acknowledgement", "fast_output: of which nothing comes", "slow_drip",
    "lose_bytes_above: of so little that nothing can be measured", "lose_bytes_above: above 512 KiB, of a default request", "kill_vm", "wrong_type: of type",
    "http_error: 500 by the agent of /exec", "http_error: 504 of /exec", "cut_after_start: of one that was waited for",
}

ROWS = [*ON_COMMANDS, *ON_WAITING, *ON_MESSAGES, *ON_DELETIONS, *WITHOUT_OCCASION, *ON_CREATIONS, *ON_PREPARATIONS, *ON_EXEC_SOCKETS, *ON_RESTORES]
