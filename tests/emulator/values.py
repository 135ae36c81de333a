"""Values on the wire and on the command line: durations, rates, times, ids."""
import argparse
import datetime
import random
import re
import time

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def duration(text):
    """Seconds of a Go duration: 300ms, 1m30s, 2.0s, 0."""
    rest = text.strip().removeprefix("+")
    if rest == "0":
        return 0.0
    total, position = 0.0, 0
    while position < len(rest):
        part = PART.match(rest, position)
        if not part:
            raise ValueError(f"not a duration: {text!r} (a number with ns, us, ms, s, m or h)")
        total += float(part[1]) * UNITS[part[2]]
        position = part.end()
    if not rest:
        raise ValueError("empty duration")
    return total


def flag_duration(text):
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def flag_count(text):
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"not a count: {text!r}")
    return int(text)


def flag_rate(text):
    """(count, seconds) of 10/60s."""
    count, slash, window = text.partition("/")
    if not slash or not count.isdigit() or int(count) < 1:
        raise argparse.ArgumentTypeError(f"not a rate: {text!r} (such as 10/60s)")
    return int(count), flag_duration(window)


def flag_switch(text):
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def stamp(seconds):
    """UTC with six fractional digits, as the control plane writes times."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def stamp_seconds(seconds):
    """UTC in whole seconds, as checkpoints have it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def ulid():
    number = (int(time.time() * 1000) << 80) | random.getrandbits(80)
    return "".join(CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))
