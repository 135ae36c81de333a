"""What a command prints and how it ends, known beforehand, beside what is told of it."""
import base64

LINE = 8            # bytes
NUMBERS = b"".join(b"%d\n" % number for number in range(1_000_000, 1_450_000))
HIGH = bytes.maketrans(b"0123456789", bytes(range(0o200, 0o212)))     # no UTF-8
WHOLE = ("counted", "verified", "recovered")


class Wanted:
    """`exits`: by itself with 0; None = nobody knows, its time is over at about the same moment. `limit`: max_output_bytes."""

    def __init__(self, out, exits=True, limit=1 << 20):
        self.out, self.exits, self.limit = out, exits, limit

    def outcomes(self, troubled):
        if troubled or self.exits is None:
            return {"timed_out"} if self.exits is False else {"exited", "timed_out"}
        return {"exited"} if self.exits else {"timed_out"}

    def kept(self, text):
        """Of what was printed, when it is all there; a text is marked where it was cut."""
        cut = len(self.out) - self.limit
        if cut <= 0:
            return self.out
        first = self.limit // 2
        mark = f"\n[… {cut} bytes cut …]\n".encode() if text else b""
        return self.out[:first] + mark + self.out[first + cut:]

    def begins(self, stdout):
        """It may be the beginning of what was printed, up to where it may be cut."""
        certain = min(len(stdout), self.limit // 2)
        return stdout[:certain] == self.out[:certain]


def bytes_of(told, stream="stdout"):
    return base64.b64decode(told[stream], validate=True) if told["encoding"][stream] == "base64" else told[stream].encode()


def printed(objects, stream):
    """What came of it in a streamed answer."""
    return b"".join(base64.b64decode(one["data"]) if one["encoding"] == "base64" else one["data"].encode()
                    for one in objects if one["type"] == stream)


def compare(wanted, told, stdout, stderr, troubled):
    """`told`: the members of an answer of a command that ran. Whether all of its output was compared."""
    assert told["outcome"] in wanted.outcomes(troubled), f"{told['outcome']} instead of {wanted.outcomes(troubled)}"
    whole = told["outcome"] == "exited" and told["output_check"] in WHOLE
    assert whole or troubled or told["outcome"] == "timed_out", f"the output was not checked: {told['output_check']}"
    if told["outcome"] == "exited":
        assert told["exit_code"] == 0, f"exit code {told['exit_code']}"
        assert stderr == b"", f"stderr: {stderr[:200]!r}"
    if whole:
        kept = wanted.kept(told["encoding"]["stdout"] == "utf-8")
        assert stdout == kept, f"stdout is not what the command printed: {stdout[:100]!r}, {len(stdout)} bytes, for {kept[:100]!r}, {len(kept)}"
        assert told["stdout_bytes"] == len(wanted.out), f"{told['stdout_bytes']} bytes told of {len(wanted.out)}"
    else:
        assert wanted.begins(stdout), f"stdout is none of this command: {stdout[:100]!r}"
    return whole


def echo(source):
    word, size = source.getrandbits(64), source.choice([0, 10, 100_000])
    return {"command": f"echo {word}; wc -c", "stdin": "x" * size}, Wanted(b"%d\n%d\n" % (word, size))


def lines(source):
    first, count = 1_000_000 + source.randrange(50_000), source.choice([1250, 375_000])
    out = NUMBERS[(first - 1_000_000) * LINE:][:count * LINE]
    limit = source.choice([100, 4_000_000])
    command = f"seq {first} {first + count - 1}"
    if source.random() < 0.3:
        command, out = command + " | tr 0-9 '\\200-\\211'", out.translate(HIGH)
    return {"command": command, "max_output_bytes": limit}, Wanted(out, limit=limit)


def sleeps(source):
    """For a moment, for about as long as it may, or for much longer."""
    seconds, limit, exits = source.choice([(0.1, None, True), (0.5, None, True), (0.5, 0.5, None), (60, 0.3, False), (60, 1, False)])
    word = source.getrandbits(64)
    more = {} if limit is None else {"timeout_seconds": limit}
    return {"command": f"echo {word}; sleep {seconds}", **more}, Wanted(b"%d\n" % word, exits)
