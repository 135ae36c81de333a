"""Faults that real clients meet, switched on by name. Which occasions they strike follows from the seed alone."""
import fnmatch
import random

# name -> (what it does, its parameters with defaults)
KNOWN = {
    "create_429": ("a creation is refused with sprite_creation_rate_limited", {"retry_after_seconds": 1}),
    "create_500": ("a creation is answered 500; with created=true the Sprite exists all the same", {"created": False}),
    "create_hang": ("a creation is held for delay_ms, then succeeds", {"delay_ms": 10000}),
    "starting_503": ("an agent route or handshake is answered 503 sprite_starting", {"retry_after_seconds": 5}),
    "false_404": ("a route of an existing Sprite is answered 404; match.method narrows it", {}),
    "delete_500": ("a DELETE is answered 500; with deleted=true the Sprite is gone all the same", {"deleted": False}),
    "latency": ("a request (match.path narrows it) is held: exactly ms, or uniform ms ± spread_ms, normal, exponential with "
                "mean ms, pareto from ms on; never above max_ms",
                {"distribution": "fixed", "ms": 100, "spread_ms": 50, "max_ms": 10000}),
    "http_error": ("a request is answered `status`, from 400 to 599, as the service words it; with after=true it takes effect first "
                   "(an answer that has begun, or a socket, goes on); a 429 is about Sprites that run, or with limit=requests about requests",
                   {"status": 500, "retry_after_seconds": 5, "after": False, "limit": "running"}),
    "cut_request": ("the connection of a request is cut without an answer; with after=true it takes effect first", {"after": False}),
    "cut_lines": ("the stream of a checkpoint or restore is cut after `lines` lines; what was asked for happens", {"lines": 1}),
    "checkpoint_error": ("making a checkpoint ends with an error line in its stream", {}),
    "restore_error": ("a restore ends with an error line in its stream", {}),
    "restore_nothing": ("a restore says that it is complete and leaves the disk as it is; with restart=true what runs is begun anew",
                        {"restart": False}),
    "cut_before_start": ("the socket is cut when a command is asked for; it never starts", {"close": None}),
    "cut_after_start": ("the socket is cut as soon as the command runs", {"close": None}),
    "cut_before_output": ("the socket is cut in place of the first output frame", {"close": None}),
    "cut_after_output": ("the socket is cut after the first output frame has left", {"close": None}),
    "cut_before_exit": ("the socket is cut after all output, before text exit and frame 3", {"close": None}),
    "cut_after_exit": ("the socket is cut after frame 3 (with a terminal: text exit), before op.complete or the close", {"close": None}),
    "cut_mid_frame": ("the socket is cut in the middle of the first output frame, or of frame 3 if there is none (on=output), or of frame 3 "
                      "(on=exit)", {"on": "output"}),
    "duplicate_exit": ("frame 3 comes twice, the second time with `code` if given", {"code": None}),
    "no_exit_code": ("the command ends without text exit, frame 3 and exitCode", {}),
    "early_exit": ("text exit comes before the last output", {}),
    "late_output": ("the last `pieces` pieces of output come after frame 3", {"pieces": 1}),
    "op_error": ("on a control socket an op.start is refused with `code` and nothing runs; with acknowledged=true it was acknowledged and runs",
                 {"code": "op.busy", "acknowledged": False}),
    "fast_output": ("a command runs for delay_ms before anybody listens: of what it printed only the last `history` bytes come, and input "
                    "waits; with closed=true nothing at all comes of one that has ended by then", {"history": 65536, "delay_ms": 50, "closed": False}),
    "merged_frames": ("the answer of a POST exec comes at its end, in chunks of `bytes` that are not frames", {"bytes": 7}),
    "stall": ("the first output, or the exit if there is none (on=output), or the exit (on=exit) is held for delay_ms",
              {"delay_ms": 30000, "on": "output"}),
    "blackhole": ("nothing is read or sent on a socket for delay_ms, pings are not answered: when a command is asked for (on=start), from its "
                  "first output, or exit, on (on=output), from its exit on (on=exit), or since a control socket opened (on=open)", {"delay_ms": 60000, "on": "output"}),
    "slow_drip": ("output comes in pieces of `bytes`, one each delay_ms", {"bytes": 16, "delay_ms": 20}),
    "lose_bytes_above": ("of each stream only the first `bytes` arrive; the exit is as if all had", {"bytes": 524288}),
    "lose_input_above": ("of standard input only the first `bytes` arrive; its end is as if all had", {"bytes": 524288}),
    "wrong_type": ("one field (`field`, else any) of a JSON answer or message has another type", {"field": None}),
    "missing_field": ("one field (`field`, else any) of a JSON answer or message is missing", {"field": None}),
    "pause_under_socket": ("the Sprite pauses delay_ms after a command started (on=start) or a socket opened (on=open)",
                           {"delay_ms": 50, "on": "start"}),
    "kill_vm": ("the Sprite's machine dies delay_ms after a command started, and is cold", {"delay_ms": 50}),
    "clock_skew": ("times in answers are `seconds` off", {"seconds": 3600}),
}
CHOICES = {("pause_under_socket", "on"): ("start", "open"), ("blackhole", "on"): ("start", "output", "exit", "open"),
           ("cut_mid_frame", "on"): ("output", "exit"), ("stall", "on"): ("output", "exit"),
           ("http_error", "limit"): ("running", "requests"),
           ("latency", "distribution"): ("fixed", "uniform", "normal", "exponential", "pareto")}
PARETO = 1.5            # a tail with a mean and no variance
WRONG = {str: 7, int: "seven", float: "seven", bool: "yes", type(None): 7, list: {}, dict: []}


class BadFault(ValueError):
    """The description of a fault is not acceptable."""


class Fault:
    def __init__(self, description, seed, number):
        if not isinstance(description, dict):
            raise BadFault("a fault is a JSON object")
        rest = dict(description)
        self.name = rest.pop("name", None)
        if self.name not in KNOWN:
            raise BadFault(f"unknown fault {self.name!r}")
        self.rate = rest.pop("rate", None)
        self.rate = 1.0 if self.rate is None else self.rate
        self.count = rest.pop("count", None)
        self.match = rest.pop("match", None) or {}
        self.parameters = dict(KNOWN[self.name][1])
        for key, value in rest.items():
            if key not in self.parameters:
                raise BadFault(f"{self.name} has no parameter {key!r}")
            self.parameters[key] = value
        self.check()
        self.random = random.Random(f"{seed} {self.name} {number}")
        self.hits = 0

    def check(self):
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float)) or not 0 <= self.rate <= 1:
            raise BadFault("rate is a number from 0 to 1")
        if self.count is not None and (type(self.count) is not int or self.count < 1):
            raise BadFault("count is null or a positive integer")
        if not isinstance(self.match, dict) or set(self.match) - {"sprite", "method", "path"} \
                or not all(isinstance(value, str) for value in self.match.values()):
            raise BadFault("match may have the texts sprite (a name, or a prefix and *), method and path (a pattern with *)")
        for key, default in KNOWN[self.name][1].items():
            value = self.parameters[key]
            if type(default) is int and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise BadFault(f"{key} is a number")
            choices = CHOICES.get((self.name, key))
            if choices and value not in choices:
                raise BadFault(f"{key} is one of {', '.join(choices)}")
            if type(default) is str and type(value) is not str:
                raise BadFault(f"{key} is a text")
            if type(default) is bool and type(value) is not bool:
                raise BadFault(f"{key} is a boolean")
        close = self.parameters.get("close")
        if close is not None and (type(close) is not int or close not in range(1000, 5000)):
            raise BadFault("close is null or from 1000 to 4999")
        if self.name == "http_error" and self.parameters["status"] not in range(400, 600):
            raise BadFault("status is from 400 to 599")

    def __getitem__(self, key):
        return self.parameters[key]

    @property
    def delay(self):
        return self.parameters["delay_ms"] / 1000

    def latency(self):
        """Seconds, drawn from the distribution."""
        mean, spread = self.parameters["ms"], self.parameters["spread_ms"]
        drawn = {"fixed": lambda: mean,
                 "uniform": lambda: self.random.uniform(mean - spread, mean + spread),
                 "normal": lambda: self.random.gauss(mean, spread),
                 "exponential": lambda: self.random.expovariate(1 / mean) if mean else 0,
                 "pareto": lambda: mean * self.random.paretovariate(PARETO)}[self.parameters["distribution"]]()
        return min(max(drawn, 0), self.parameters["max_ms"]) / 1000

    def strikes(self, sprite, method, on, path=None):
        if self.parameters.get("on") != on:
            return False
        if self.count is not None and self.hits >= self.count:
            return False
        wanted = self.match.get("sprite")
        if wanted is not None and not (fnmatch.fnmatchcase(sprite or "", wanted) if wanted.endswith("*") else sprite == wanted):
            return False
        if "method" in self.match and self.match["method"] != method:
            return False
        if "path" in self.match and not (path and fnmatch.fnmatchcase(path, self.match["path"])):
            return False
        # drawn for every occasion that matches, so that the sequence depends on nothing else
        if self.random.random() >= self.rate:
            return False
        self.hits += 1
        return True

    def describe(self):
        return {"name": self.name, "rate": self.rate, "count": self.count, "match": self.match,
                **self.parameters, "hits": self.hits}


class Faults:
    def __init__(self, seed):
        self.seed = seed
        self.active = []
        self.number = 0

    def add(self, description):
        fault = Fault(description, self.seed, self.number)
        self.number += 1
        self.active.append(fault)
        return fault

    def clear(self, name=None):
        self.active = [fault for fault in self.active if name is not None and fault.name != name]

    def hit(self, name, sprite=None, method=None, on=None, path=None):
        """The fault that strikes this occasion, or None."""
        for fault in self.active:
            if fault.name == name and fault.strikes(sprite, method, on, path):
                return fault
        return None

    def damage(self, message, sprite=None):
        """A JSON object as wrong_type and missing_field leave it."""
        for name in ("wrong_type", "missing_field"):
            if any(fault.name == name for fault in self.active) and message:
                fault = self.hit(name, sprite)
                if fault:
                    message = spoil(message, fault)
        return message


def spoil(message, fault):
    key = fault["field"] or fault.random.choice(sorted(set(message) - {"type"}) or sorted(message))
    if key not in message:
        return message
    if fault.name == "missing_field":
        return {k: v for k, v in message.items() if k != key}
    return {**message, key: WRONG[type(message[key])]}
