"""What a client asks to run: the same fields from a query string or from the args of op.start."""
import dataclasses
import re
import signal

import values

EXEC_ID = re.compile(r"SPRITEGATE_EXEC_ID=['\"]?([A-Za-z0-9_-]+)")
SIGNALS = {name: getattr(signal, "SIG" + name) for name in ("INT", "TERM", "HUP", "KILL", "QUIT", "USR1", "USR2")}
OFFSET = re.compile(r"[0-9]{1,18}")
DETACHED_RUN = 10.0


class BadCommand(ValueError):
    """The request names nothing that could run."""


@dataclasses.dataclass
class Command:
    argv: list
    path: str
    env: list               # K=V as asked; when there is any it replaces the default environment
    dir: str | None
    tty: bool
    rows: int
    cols: int
    stdin: bool
    max_run: float          # seconds the process may go on without a client; 0 = for ever
    environment: dict = dataclasses.field(default_factory=dict)

    def resolve_environment(self, default):
        if self.env:
            pairs = (entry.partition("=") for entry in self.env)
            self.environment = {"HOME": default["HOME"], **{key: value for key, _, value in pairs if key}}
        else:
            self.environment = dict(default)
            if self.tty:
                self.environment["TERM"] = "xterm-256color"

    def exec_ids(self):
        """The gateway's ids of this run, wherever in the request they stand."""
        return {found for text in [*self.env, *self.argv] for found in EXEC_ID.findall(text)}

    @property
    def waits(self):
        """The gateway's own program, started ahead of a command that comes as its standard input: that is then the start."""
        return len(self.argv) == 2 and self.argv[0].endswith("/shim") and self.argv[1] == "wait"


def ordered_ids(data):
    """The same in what a program that waits is told."""
    return set(EXEC_ID.findall(data.decode("latin-1")))


def from_query(query):
    """From the URL of an exec; query is a multidict."""
    return build(query.getall("cmd", []) or query.getall("cmd[]", []), query.getall("env", []), query.get)


def from_args(args):
    """From op.start: only texts and arrays of texts are read, numbers and booleans are dropped."""
    args = args if isinstance(args, dict) else {}

    def texts(key):
        value = args.get(key)
        if isinstance(value, str):
            return [value]
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def text(key, default=None):
        found = texts(key)
        return found[0] if found else default

    return build(texts("cmd"), texts("env"), text)


def args_text(args, key):
    """One text of op.start, which may come as an array of it."""
    value = args.get(key)
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def output_offset(text):
    """How many bytes of output an attaching client has already."""
    if not text:
        return 0
    if not OFFSET.fullmatch(text):
        raise BadCommand("invalid output_offset")
    return int(text)


def build(argv, env, get):
    path = get("path") or (argv[0] if argv else None)
    if not path:
        raise BadCommand("No command specified")
    if "\0" in "".join([path, *argv, *env]):
        raise BadCommand("a NUL byte in the command")
    tty = get("tty") == "true"
    max_run = get("max_run_after_disconnect")
    try:
        max_run = values.duration(max_run) if max_run else 0.0 if tty else DETACHED_RUN
    except ValueError as error:
        raise BadCommand(f"invalid max_run_after_disconnect: {error}") from None
    stdin = get("stdin")
    return Command(argv=argv or [path], path=path, env=env, dir=get("dir"), tty=tty,
                   rows=size(get("rows"), 24), cols=size(get("cols"), 80),
                   stdin=tty if stdin is None else stdin == "true", max_run=max_run)


def size(text, default):
    return int(text) if text and text.isdecimal() and 0 < int(text) < 65536 else default


def signal_number(name):
    """INT or SIGINT; None for what the service does not know."""
    return SIGNALS.get(str(name).upper().removeprefix("SIG"))
