"""Commands on a control socket, as the gateway runs them: what goes in, what comes out, how they end."""
import asyncio
import hashlib
import json
import os
import platform
import re
import time

import aiohttp
import pytest

from service import CONTROL, EXIT, Channel, Refused, is_complete, is_exit, is_session, until

CODES = (0, 1, 2, 42, 126, 127, 128, 137, 143, 254, 255)
MIB = 1 << 20
SIZES = (256 << 10, MIB, 4 * MIB, 16 * MIB)
TOOLS = "bash cat chmod dd head mkdir mv rm sha256sum stat"
# Says the digest of $1 random bytes on stderr, then the bytes.
RANDOM = 'head -c "$1" /dev/urandom >/tmp/conformance && sha256sum </tmp/conformance >&2 && cat /tmp/conformance; rm -f /tmp/conformance'


async def test_the_course_of_a_command(service, sprite):
    """Acknowledged with the id of its start, announced with its session, output, exit frame, op.complete."""
    result = await service.shell(sprite, "echo out; echo err >&2; exit 3")
    assert (result.out, result.err, result.exits) == (b"out\n", b"err\n", [b"\3"])
    assert [told["id"] for told in result.envelopes("op.ack")] == ["1"]
    assert [told["id"] for told in result.envelopes("op.complete")] == ["1"]
    assert isinstance(result.session, str) and result.session
    kinds = [EXIT if is_exit(frame) else "complete" if is_complete(frame) else frame[0] for frame in result.frames
             if isinstance(frame, bytes) or is_complete(frame)]
    assert kinds[-2:] == [EXIT, "complete"], "all output comes before the exit frame, and op.complete after it"


async def test_exit_codes(service, sprite):
    async with service.control(sprite) as control:
        for code in CODES:
            result = await control.run("bash", "-c", f"exit {code}")
            assert result.exits == [bytes([code])]


async def test_one_socket_carries_one_command_after_another(service, sprite):
    async with service.control(sprite) as control:
        for number in range(20):
            result = await control.run("bash", "-c", f"cat; echo {number} >&2", input=b"in")
            assert (result.out, result.err, result.code) == (b"in", b"%d\n" % number, 0)


async def test_fast_commands_lose_nothing(service, sprite):
    async with service.control(sprite) as control:
        for _ in range(40):
            result = await control.run("echo", "fast")
            assert (result.out, result.code) == (b"fast\n", 0)


async def test_a_command_that_waits_for_input_loses_nothing(service, sprite):
    """What a service may lose is what was printed before it listens; by the time it passes input on it does."""
    whole = "".join(f"{number}\n" for number in range(1, 20_001)).encode()     # more than any history that was seen
    async with service.control(sprite) as control:
        for _ in range(20):
            result = await control.run("bash", "-c", "IFS= read -r line; seq 20000", input=b"\n")
            assert (result.out == whole, result.code) == (True, 0)


async def test_op_complete_follows_at_once(service, sprite, figures):
    """The gateway gives the socket up two seconds after the exit frame."""
    async with service.control(sprite) as control:
        result = await control.run("true")
    exit, complete = result.seconds_to_exit, result.seconds(is_complete)
    assert complete - exit < 2
    figures.note("M7", f"op.complete of exit 0: {json.dumps(result.envelopes('op.complete')[0].get('args'))}")


async def test_a_second_command_is_refused_and_the_first_goes_on(service, sprite):
    async with service.control(sprite) as control:
        first = await control.start("bash", "-c", "echo one; read -r line; echo two; exit 5")
        await control.until_output(b"one\n", first)
        await control.start("echo", "never")
        refused = await control.follow(is_complete)
        assert [told["args"]["code"] for told in refused.envelopes("op.error")] == ["op.busy"]
        await control.input(b"go\n")
        result = await control.end(first)
    assert (result.out, result.code) == (b"one\ntwo\n", 5)


async def test_an_unknown_operation_is_refused_and_the_socket_stays(service, sprite):
    async with service.control(sprite) as control:
        refused = await control.end(await control.start(op="conformance"))
        assert [told["args"]["code"] for told in refused.envelopes("op.error")] == ["op.not_found"]
        assert (await control.run("true")).code == 0


async def test_standard_input_is_whole_and_ends(service, sprite):
    data = os.urandom(2 * MIB)
    result = await service.run(sprite, "sha256sum", input=data)
    assert result.out.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_input_that_nobody_reads_hinders_nothing(service, sprite):
    result = await service.run(sprite, "true", input=bytes(65536))
    assert result.code == 0


async def test_arguments_arrive_as_they_are(service, sprite):
    words = ["", " ", "a b", "'\"\\$`", "ü€😀", "\n", "-n", "x" * 131071]
    result = await service.run(sprite, "bash", "-c", 'for word; do printf "%s" "$word" | sha256sum; done', "bash", *words)
    assert [line.split()[0] for line in result.out.decode().splitlines()] == [hashlib.sha256(word.encode()).hexdigest() for word in words]


async def test_half_a_mebibyte_of_arguments(service, sprite):
    """The largest request that the gateway passes on."""
    words = ["y" * 100_000] * 5
    result = await service.run(sprite, "bash", "-c", 'printf "%s" "$@" | wc -c', "bash", *words)
    assert result.out.strip() == b"500000"


async def test_what_a_command_finds(service, sprite):
    """The default environment, with the tools that the gateway's scripts use."""
    result = await service.shell(sprite, f'pwd; echo "$HOME"; hash {TOOLS} && echo tools; [ -w /tmp ] && echo tmp; [ -r /proc/1/stat ] && echo stat')
    assert result.out.decode().split("\n")[:-1] == ["/home/sprite", "/home/sprite", "tools", "tmp", "stat"], result.err


async def test_a_program_that_is_brought_by_standard_input_can_be_run(service, sprite):
    """The shim comes so, which is built for the architecture of the gateway's own machine."""
    result = await service.shell(sprite, "cat >/tmp/conformance-program && chmod 700 /tmp/conformance-program && /tmp/conformance-program && uname -m",
                                 input=b"#!/bin/sh\necho it runs\n")
    assert (result.out.decode(), result.code) == (f"it runs\n{platform.machine()}\n", 0), result.err


async def test_a_login_shell(service, sprite):
    result = await service.run(sprite, "bash", "-lc", "echo $0; exit 4")
    assert (result.out, result.code) == (b"bash\n", 4)


async def test_a_directory(service, sprite):
    assert (await service.run(sprite, "pwd", dir="/tmp")).out == b"/tmp\n"


async def test_given_variables_replace_the_environment(service, sprite):
    """The gateway sends none for that reason; its shim sets the caller's."""
    result = await service.run(sprite, "env", env=["ONLY=this"])
    names = {line.split("=")[0] for line in result.out.decode().splitlines()}
    assert "ONLY" in names
    assert "PATH" not in names


async def test_a_program_that_is_not_there(service, sprite):
    """However the service says so, it ends, and not as a success."""
    result = await service.run(sprite, "conformance-no-such-program")
    assert result.code != 0
    assert result.envelopes("op.complete") or result.envelopes("op.error")


async def sessions(service, sprite):
    """Ids of what runs."""
    answer = await service.ask("GET", f"/v1/sprites/{sprite}/exec")
    assert answer.status == 200, answer
    return [entry["id"] for entry in answer.json["sessions"]]


# --- ends ---------------------------------------------------------------------

def told(result):
    """How the end of a command was told, for the table."""
    complete = result.envelopes("op.complete")
    return (f"frame {[list(data) for data in result.exits]}, text {[text.get('exit_code') for text in result.texts('exit')]}, "
            f"op.complete {json.dumps(complete[0].get('args')) if complete else 'none'}")


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("KILL", 137), ("INT", 130)])
async def test_signals(service, sprite, figures, name, code):
    async with service.control(sprite) as control:
        result = await control.start("bash", "-c", "trap - INT; echo ready; exec sleep 600")
        await control.until_output(b"ready\n", result)
        await control.signal(name)
        sent = time.monotonic()
        await control.end(result)
    figures.note("M7", f"{name}: {told(result)}")
    assert result.code == code
    if name == "KILL":
        figures.time("M8", "KILL by the socket, to the exit frame", result.began + result.seconds_to_exit - sent)


async def test_a_command_that_kills_itself(service, sprite, figures):
    result = await service.shell(sprite, "kill -KILL $$")
    figures.note("M7", f"kill -KILL $$: {told(result)}")
    assert result.code == 137


async def test_a_signal_reaches_the_children(service, sprite):
    """The whole group ends, so that nothing goes on in a Sprite after a KILL."""
    async with service.control(sprite) as control:
        result = await control.start("bash", "-c", "sleep 599 & echo ready; wait")
        await control.until_output(b"ready\n", result)
        await control.signal("KILL")
        await control.end(result)

    async def ended():
        return (await service.run(sprite, "pgrep", "-xf", "sleep 599")).out == b""

    assert await until(ended, 5)


async def test_the_kill_route(service, sprite, figures):
    """By the id of session_info; a signal on the socket would wait behind input that the command does not read."""
    async with service.control(sprite) as control:
        result = await control.start("sleep", "600")
        await control.follow(is_session, result)
        assert result.session in await sessions(service, sprite)
        sent = time.monotonic()
        answer = await service.ask("POST", f"/v1/sprites/{sprite}/exec/{result.session}/kill?timeout=0s&signal=KILL")
        assert answer.status == 200, answer
        await control.end(result)
    assert result.code == 137
    figures.time("M8", "KILL by the route, to the exit frame", result.began + result.seconds_to_exit - sent)
    figures.note("M8", f"the route's answer: {[line.get('type') for line in answer.lines]}")
    again = await service.ask("POST", f"/v1/sprites/{sprite}/exec/{result.session}/kill?timeout=0s&signal=KILL")
    assert again.status in (404, 410)
    unknown = await service.ask("POST", f"/v1/sprites/{sprite}/exec/999999999/kill?timeout=0s&signal=KILL")
    assert unknown.status == 404


async def test_a_child_that_keeps_the_output_open_does_not_hold_the_exit_back(service, sprite):
    result = await service.shell(sprite, "sleep 597 & echo early; exit 6")
    await service.run(sprite, "pkill", "-xf", "sleep 597")
    assert (result.out, result.code) == (b"early\n", 6)
    assert result.seconds_to_exit < 10


async def test_what_was_written_just_before_the_exit_arrives(service, sprite):
    """Also what is still in the pipe when the process has ended."""
    result = await service.shell(sprite, "head -c 60000 /dev/zero; exit 7")
    assert (len(result.out), result.code) == (60000, 7)


# --- output -------------------------------------------------------------------

async def random_bytes(service, sprite, size):
    """(result, whether all came as they were written)"""
    result = await service.shell(sprite, RANDOM, str(size), seconds=120)
    found = re.match(rb"[0-9a-f]{64}", result.err)
    return result, found is not None and hashlib.sha256(result.out).hexdigest().encode() == found[0]


async def test_a_mebibyte_of_output_is_whole(service, sprite):
    """What is above it the gateway compares with a record in the Sprite, and fetches what is missing."""
    for size in (65536, MIB):
        result, whole = await random_bytes(service, sprite, size)
        assert result.code == 0
        assert len(result.out) == size
        assert whole, "not the bytes that were written"


async def test_large_output(service, sprite, figures):
    """Bytes may be missing (that is known of the service), never too many, and the end is told all the same."""
    for size in SIZES:
        result, whole = await random_bytes(service, sprite, size)
        assert result.code == 0
        assert len(result.out) <= size
        figures.note("M6", f"{size >> 10} KiB: {len(result.out)} bytes came, {'as written' if whole else 'NOT as written'}, "
                           f"{size / MIB / result.seconds_to_exit:.1f} MiB/s with making them")


async def test_both_streams_at_once(service, sprite):
    result = await service.shell(sprite, "for i in {1..200}; do printf '%01000d' 1; printf '%01000d' 2 >&2; done")
    assert (len(result.out), len(result.err)) == (200_000, 200_000)
    assert result.out == (b"0" * 999 + b"1") * 200
    assert result.err == (b"0" * 999 + b"2") * 200


async def test_output_comes_while_the_command_runs(service, sprite):
    async with service.control(sprite) as control:
        result = await control.start("bash", "-c", "echo now; read -r line; echo then")
        await control.until_output(b"now\n", result)
        await control.input(b"\n")
        assert (await control.end(result)).out == b"now\nthen\n"


# --- sockets ------------------------------------------------------------------

async def test_a_ping_is_answered(service, sprite):
    async with service.socket(f"/v1/sprites/{sprite}/control", autoping=False) as ws:
        await ws.ping(b"conformance")
        message = await ws.receive(20)
    assert message.type is aiohttp.WSMsgType.PONG
    assert message.data == b"conformance"


async def test_several_sockets_at_a_time(service, sprite):
    async with service.control(sprite) as one, service.control(sprite) as two:
        first = await one.start("bash", "-c", "echo one; read -r line")
        await one.until_output(b"one\n", first)
        assert (await two.run("echo", "two")).out == b"two\n"
        await one.input(b"\n")
        assert (await one.end(first)).code == 0


async def test_a_command_on_a_socket_of_its_own(service, sprite, figures):
    """The way without control sockets: the handshake starts it. The gateway closes at the exit frame."""
    query = "cmd=bash&cmd=-c&cmd=cat%3B%20exit%209&path=bash&stdin=true"
    async with service.socket(f"/v1/sprites/{sprite}/exec?{query}") as ws:
        channel = Channel(ws)
        await channel.input(b"in")
        result = await channel.follow(is_exit)
        exit = time.monotonic()
        await channel.follow(lambda frame: False)
        figures.time("M8", "exec socket: from the exit frame to the close", time.monotonic() - exit)
    assert (result.out, result.code) == (b"in", 9)


async def test_no_command_on_a_socket_of_its_own(service, sprite):
    with pytest.raises(Refused) as refused:
        async with service.socket(f"/v1/sprites/{sprite}/exec/999999999"):
            pass
    assert refused.value.status == 404


async def test_a_client_that_leaves(service, sprite, figures):
    """The process goes on for a while without it, or as long as it asked for, and is then ended by the service."""
    default, brief = await asyncio.gather(leave(service, sprite), leave(service, sprite, max_run_after_disconnect="1s"))
    figures.time("M8", "a process whose client left is gone after", default)
    figures.time("M8", "the same with max_run_after_disconnect=1s", brief)
    assert brief < 8


async def leave(service, sprite, **args):
    """Seconds from leaving to the end of the session."""
    async with service.control(sprite) as control:
        result = await control.start("sleep", "601", **args)
        await control.follow(is_session, result)
    left = time.monotonic()

    async def ended():
        return result.session not in await sessions(service, sprite)

    assert await until(ended, 60), "it is still running after a minute"
    return time.monotonic() - left


async def test_a_broken_envelope_leaves_the_socket_usable(service, sprite):
    async with service.control(sprite) as control:
        await control.send(CONTROL + "{")
        refused = await control.follow(is_complete)
        assert [one["args"]["code"] for one in refused.envelopes("op.error")] == ["op.not_active"]
        assert (await control.run("true")).code == 0


async def test_what_an_idle_sprite_holds(service, sprite, figures):
    """The bill is in the provider's dashboard only; this is what it could be about."""
    result = await service.shell(sprite, "nproc; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo")
    assert result.code == 0
    cpus, total, available = re.findall(rb"\d+", result.out)
    used = int(total) - int(available)
    figures.note("M9", f"{int(cpus)} CPUs, {int(total) >> 10} MiB of memory in sight, {used >> 10} MiB of it used while idle "
                       "(an emulated Sprite shows the machine's)")
    figures.note("M9", "what is billed of it: only in the provider's dashboard; compare an hour with and without hot Sprites there")


async def test_commands_of_two_sprites_at_once(service, sprite, other):
    both = await asyncio.gather(*(service.shell(name, "echo $(($RANDOM)) >/tmp/mine; sleep 0.2; ls /tmp/mine; rm /tmp/mine") for name in (sprite, other)))
    assert [result.code for result in both] == [0, 0]
