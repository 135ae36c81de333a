"""Output of any size and any bytes: complete below the cap, head and tail above it, never a broken character."""
import base64
import concurrent.futures
import re
import time

import pytest

MIB = 1024 * 1024
CUT = re.compile(r"\n\[… (\d+) bytes cut …\]\n")


def numbered(count):
    return "".join(f"{i:09}\n" for i in range(count))


LINES = "i=0; python3 -c \"import sys; sys.stdout.write(''.join(f'{i:09}\\n' for i in range(%d)))\""


@pytest.mark.smoke
def test_ten_megabytes_with_room(stack):
    ran = stack.run(LINES % MIB, max_output_bytes=16 * MIB, timeout_seconds=60)
    assert (ran.outcome, ran.exit_code) == ("exited", 0), ran.stderr
    assert ran.stdout_bytes == 10 * MIB
    assert ran.stdout_truncated is False
    assert ran.stdout == numbered(MIB), "10 MiB of output did not arrive as they were written"


def test_ten_megabytes_without_room(stack):
    """The default cap is 1 MiB: head and tail are kept, the cut is marked, all is counted."""
    ran = stack.run(LINES % MIB, timeout_seconds=60)
    assert (ran.outcome, ran.exit_code) == ("exited", 0), ran.stderr
    assert ran.stdout_bytes == 10 * MIB
    assert ran.stdout_truncated is True and ran.stderr_truncated is False
    check_cut(ran.stdout, numbered(MIB), MIB)


def check_cut(kept, written, cap):
    found = CUT.findall(kept)
    assert len(found) == 1, f"the cut is marked {len(found)} times"
    head, tail = re.split(CUT, kept)[0], re.split(CUT, kept)[-1]
    assert written.startswith(head), "the head is not how the output began"
    assert written.endswith(tail), "the tail is not how the output ended"
    size = len(head.encode()) + len(tail.encode())
    assert cap - 8 <= size <= cap, f"{size} bytes kept of {cap} allowed"
    assert abs(len(head.encode()) - len(tail.encode())) <= 8, "head and tail are not alike"
    assert int(found[0]) == len(written.encode()) - size, f"{found[0]} bytes said to be cut"


@pytest.mark.parametrize("cap", [1, 2, 3, 10, 1000, 4097])
def test_small_caps(stack, cap):
    ran = stack.run(LINES % 1000 + "; echo problem >&2", max_output_bytes=cap)
    assert ran.stdout_bytes == 10_000 and ran.stdout_truncated is True
    check_cut(ran.stdout, numbered(1000), cap)
    assert ran.stderr_bytes == 8
    assert ran.stderr_truncated is (cap < 8)


def test_no_output_wanted(stack):
    ran = stack.run("echo hello", max_output_bytes=0)
    assert (ran.exit_code, ran.stdout_bytes, ran.stdout_truncated) == (0, 6, True)
    assert "hello" not in ran.stdout
    silent = stack.run("true", max_output_bytes=0)
    assert (silent.stdout, silent.stdout_truncated) == ("", False)


def test_exactly_the_cap(stack):
    ran = stack.run("printf 1234567890", max_output_bytes=10)
    assert (ran.stdout, ran.stdout_truncated) == ("1234567890", False)
    over = stack.run("printf 12345678901", max_output_bytes=10)
    assert over.stdout_truncated is True and over.stdout_bytes == 11


def test_larger_wishes_are_lowered(stack):
    ran = stack.run("echo hello", max_output_bytes=10**15)
    assert ran.stdout == "hello\n"


@pytest.mark.parametrize("cap", range(20, 28))
def test_characters_are_not_cut_apart(stack, cap):
    """Whatever byte the cap falls on, of characters of one to four bytes."""
    text = "aé€🌡" * 500
    ran = stack.run("cat", stdin=text, max_output_bytes=cap)
    assert ran.encoding["stdout"] == "utf-8", "valid text was cut into something that is not"
    assert "\ufffd" not in ran.stdout
    check_cut(ran.stdout, text, cap)


INVALID = {
    "lone continuation": b"a\x80b", "cut character": b"abc\xe2\x82", "latin-1": "Tórshavn".encode("latin-1"),
    "overlong": b"\xc0\xaf", "surrogate": b"\xed\xa0\x80", "beyond Unicode": b"\xf4\x90\x80\x80", "zero bytes and ff": b"\0\xff\0",
}


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID.keys())
def test_output_that_is_not_utf8(stack, data):
    ran = stack.run("cat; echo fine >&2", stdin={"base64": base64.b64encode(data).decode()})
    assert ran.encoding == {"stdout": "base64", "stderr": "utf-8"}
    assert ran.bytes("stdout") == data
    assert ran.stdout_bytes == len(data)
    assert ran.stderr == "fine\n"


def test_control_characters_are_text(stack):
    data = bytes(range(128))
    ran = stack.run("cat", stdin={"base64": base64.b64encode(data).decode()})
    assert ran.encoding["stdout"] == "utf-8"
    assert ran.stdout.encode() == data


def test_large_binary_output(stack):
    ran = stack.run("head -c 3000000 /dev/zero; printf '\\377'", max_output_bytes=4 * MIB)
    assert ran.encoding["stdout"] == "base64"
    assert ran.bytes("stdout") == b"\0" * 3_000_000 + b"\xff"


def test_binary_output_that_is_cut(stack):
    ran = stack.run("head -c 3000 /dev/zero | tr '\\0' '\\377'; printf '\\376'", max_output_bytes=1000)
    assert ran.encoding["stdout"] == "base64" and ran.stdout_truncated is True
    assert ran.stdout_bytes == 3001
    assert ran.bytes("stdout") == b"\xff" * 999 + b"\xfe"


def test_a_character_written_in_two_pieces(stack):
    ran = stack.run("printf '\\342\\202'; sleep 0.3; printf '\\254'")
    assert (ran.stdout, ran.encoding["stdout"]) == ("€", "utf-8")


def test_both_streams_have_their_own_cap(stack):
    ran = stack.run("head -c 5000 /dev/zero | tr '\\0' o; head -c 100 /dev/zero | tr '\\0' e >&2", max_output_bytes=1000)
    assert ran.stdout_truncated is True and ran.stderr_truncated is False
    assert (ran.stdout_bytes, ran.stderr_bytes) == (5000, 100)
    assert ran.stderr == "e" * 100


def test_a_stream_of_output_is_not_disturbed_by_other_commands(stack):
    """While Sprites are made, claimed and destroyed, output that is on its way arrives whole."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        long = [pool.submit(stack.run, "end=$((SECONDS + 6)); n=0; while [ $SECONDS -lt $end ]; do "
                            "head -c 100000 /dev/zero | tr '\\0' x; n=$((n + 1)); done; echo $n >&2", timeout_seconds=60)
                for _ in range(3)]
        while not all(one.done() for one in long):
            assert stack.run("echo x", timeout_seconds=60).stdout == "x\n"
            time.sleep(0.3)
        for one in long:
            ran = one.result()
            assert (ran.outcome, ran.exit_code) == ("exited", 0)
            assert ran.stdout_bytes == 100_000 * int(ran.stderr), "output was lost"
