"""A command gives the right, complete answer: what it printed, how it ended, what it was given."""
import base64
import json
import string

import pytest

from answers import is_uuid7


@pytest.mark.smoke
def test_shell_line(stack):
    ran = stack.run("echo hello; echo problem >&2")
    assert (ran.outcome, ran.exit_code, ran.stdout, ran.stderr) == ("exited", 0, "hello\n", "problem\n")
    assert (ran.stdout_bytes, ran.stderr_bytes) == (6, 8)
    assert (ran.stdout_truncated, ran.stderr_truncated) == (False, False)
    assert ran.encoding == {"stdout": "utf-8", "stderr": "utf-8"}


def test_shell_line_is_run_by_a_login_bash(stack):
    ran = stack.run('shopt -q login_shell && echo login; echo "$0"; [[ a == a ]] && echo bash')
    assert ran.stdout == "login\nbash\nbash\n", ran.stdout


def test_argv_runs_without_a_shell(stack):
    words = ["$HOME", "*", "a b", "", "'", '"', "\\", ";", "é\n", "-n", "--"]
    ran = stack.run(argv=["python3", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words])
    assert ran.exit_code == 0, ran.stderr
    assert json.loads(ran.stdout) == words


@pytest.mark.parametrize("program", ["printf", "a=b", "-x", "--"])
def test_argv_program_is_only_a_name(stack, program):
    """A name that a shell would take for an assignment or an option is looked up as it stands."""
    ran = stack.run(argv=[program, "%s|", "one", "two words"])
    if program == "printf":
        assert (ran.exit_code, ran.stdout) == (0, "one|two words|")
    else:
        assert ran.exit_code == 127, f"{ran.exit_code} {ran.stderr}"
        assert program in ran.stderr


@pytest.mark.smoke
def test_standard_input_as_text(stack):
    text = "first line\nzweite Zeile – ü 🌡\n no line end"
    ran = stack.run("cat", stdin=text)
    assert ran.stdout == text


def test_standard_input_as_base64(stack):
    data = bytes(range(256)) * 3
    ran = stack.run(argv=["cat"], stdin={"base64": base64.b64encode(data).decode()})
    assert ran.bytes("stdout") == data
    assert ran.encoding["stdout"] == "base64"


def test_large_standard_input_arrives_whole(stack):
    data = bytes(i * 7 % 251 for i in range(5_000_000))
    ran = stack.run("sha256sum; wc -c < /dev/null", stdin={"base64": base64.b64encode(data).decode()}, timeout_seconds=60)
    import hashlib
    assert ran.stdout.split()[0] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("fields", [{"command": "cat; echo end"}, {"command": "cat; echo end", "stdin": ""}])
def test_standard_input_always_ends(stack, fields):
    ran = stack.run(**fields, timeout_seconds=20)
    assert (ran.outcome, ran.stdout) == ("exited", "end\n")


def test_reads_part_of_standard_input(stack):
    """A command that stops reading does not wait for the rest to be taken."""
    ran = stack.run("head -c 5", stdin="x" * 2_000_000, timeout_seconds=20)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "xxxxx")


def test_reads_standard_input_line_by_line(stack):
    ran = stack.run("while IFS= read -r line; do echo \"<$line>\"; done", stdin="a\n b \n\nc\n")
    assert ran.stdout == "<a>\n< b >\n<>\n<c>\n"


def test_env_is_added_to_the_default_environment(stack):
    plain = dict(line.split("=", 1) for line in stack.run("env").stdout.splitlines())
    given = {"GREETING": "good day", "EMPTY": "", "ODD": "a=b\n'\"$HOME;", "LANG": "C"}
    ran = stack.run(argv=["python3", "-c", "import os, json; print(json.dumps(dict(os.environ)))"], env=given)
    found = json.loads(ran.stdout)
    assert {name: found.get(name) for name in given} == given
    for name in ("HOME", "PATH", "USER"):
        assert found.get(name) == plain[name], f"{name} of the sandbox is lost: {found.get(name)}"


def test_env_may_replace_path(stack):
    ran = stack.run(argv=["/bin/sh", "-c", "echo $PATH"], env={"PATH": "/nowhere"})
    assert ran.stdout == "/nowhere\n", ran.stderr


def test_cwd(stack):
    assert stack.run("pwd").stdout == "/home/sprite\n"
    assert stack.run(argv=["pwd"], cwd="/usr/lib").stdout == "/usr/lib\n"
    assert stack.run("mkdir -- '-P' && cd ./-P && pwd").stdout == "/home/sprite/-P\n"


def test_cwd_that_is_missing(stack):
    """The command must not run elsewhere instead."""
    ran = stack.run("echo it ran; touch /tmp/x", cwd="/no/such/folder")
    assert ran.exit_code == 126, f"{ran.outcome} {ran.exit_code}"
    assert ran.stdout == "", f"it ran: {ran.stdout!r}"
    assert "/no/such/folder" in ran.stderr, ran.stderr


@pytest.mark.smoke
def test_exec_id_is_known_to_the_command(stack):
    ran = stack.run("echo $SPRITEGATE_EXEC_ID", env={"OTHER": "1"})
    assert ran.stdout.strip() == ran.exec_id
    assert is_uuid7(ran.exec_id)
    assert stack.sprites.starts(ran.exec_id) == 1


CODES = [0, 1, 2, 42, 124, 125, 126, 127, 128, 129, 130, 137, 143, 254, 255]


@pytest.mark.parametrize("code", CODES)
def test_exit_codes(stack, code):
    ran = stack.run(f"echo before; exit {code}")
    assert (ran.outcome, ran.exit_code, ran.signal) == ("exited", code, None)
    assert (ran.stdout, ran.stderr) == ("before\n", "")


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_codes_without_a_shell(stack, code):
    ran = stack.run(argv=["python3", "-c", f"raise SystemExit({code})"])
    assert (ran.outcome, ran.exit_code) == ("exited", code)


def test_program_that_does_not_exist(stack):
    ran = stack.run(argv=["no-such-program-here"])
    assert (ran.outcome, ran.exit_code) == ("exited", 127)
    assert "no-such-program-here" in ran.stderr


def test_program_that_cannot_be_executed(stack):
    ran = stack.run(argv=["/etc/passwd"])
    assert (ran.outcome, ran.exit_code) == ("exited", 126)
    assert "/etc/passwd" in ran.stderr


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("TERM", 15), ("SEGV", 11)])
def test_killed_by_a_signal(stack, name, number):
    """Sprites report 128 + n; it is not made into a signal that nobody saw."""
    ran = stack.run(f"echo before; kill -{name} $$; sleep 5")
    assert (ran.outcome, ran.exit_code, ran.signal) == ("exited", 128 + number, None)
    assert ran.stdout == "before\n"


@pytest.mark.smoke
def test_silence(stack):
    ran = stack.run("true")
    assert (ran.outcome, ran.exit_code, ran.stdout, ran.stderr) == ("exited", 0, "", "")
    assert (ran.stdout_bytes, ran.stderr_bytes) == (0, 0)
    failed = stack.run("false")
    assert (failed.exit_code, failed.stdout, failed.stderr) == (1, "", "")


def test_only_standard_error(stack):
    ran = stack.run("echo one >&2; echo two >&2; exit 3")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (3, "", "one\ntwo\n")


def test_background_child(stack):
    """The command has ended when it has; a child that keeps its output open does not hold the answer."""
    ran = stack.run("sleep 300 & echo started", timeout_seconds=200)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 0, "started\n")
    assert ran.duration_ms < 100_000, f"the answer waited {ran.duration_ms} ms for a child"


def test_detached_child_with_closed_output(stack):
    ran = stack.run("(setsid sleep 300 >/dev/null 2>&1 &) ; echo started; exit 4", timeout_seconds=15)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 4, "started\n")


def test_output_of_both_streams_is_complete_at_exit(stack):
    """What is written right before the end is not lost."""
    for _ in range(5):
        ran = stack.run("for i in $(seq 500); do echo out $i; echo err $i >&2; done; exit 9")
        assert ran.exit_code == 9
        assert ran.stdout == "".join(f"out {i}\n" for i in range(1, 501))
        assert ran.stderr == "".join(f"err {i}\n" for i in range(1, 501))


def test_long_command(stack):
    """As long as one argument may be."""
    line = "printf %s " + "x" * 120_000
    ran = stack.run(line)
    assert ran.exit_code == 0, ran.stderr[:300]
    assert ran.stdout == "x" * 120_000


def test_odd_characters_in_the_command(stack):
    text = "".join(c for c in string.printable if c not in "'\r") + "ü🌡\u2028"
    ran = stack.run(f"printf %s '{text}'")
    assert ran.stdout == text


def test_a_sandbox_serves_one_command(stack):
    """Nothing of a command is seen by another one."""
    first = stack.run("echo mine > /tmp/left; echo mine > ~/left; sleep 300 & echo $!")
    assert first.exit_code == 0
    for _ in range(4):
        ran = stack.run("ls /tmp ~; ps ax | grep -c '[s]leep 300'")
        assert "left" not in ran.stdout, f"a file of another command: {ran.stdout}"
        assert ran.stdout.split()[-1] == "0", f"a process of another command: {ran.stdout}"


def test_answers_of_simultaneous_commands_are_not_mixed_up(stack):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as pool:
        rans = list(pool.map(lambda i: (i, stack.run(f"sleep 0.2; echo {i}; echo e{i} >&2; exit {i}", timeout_seconds=60)), range(12)))
    for i, ran in rans:
        assert (ran.exit_code, ran.stdout, ran.stderr) == (i, f"{i}\n", f"e{i}\n")
    assert len({ran.exec_id for _, ran in rans}) == len(rans), "an exec id was used twice"


def test_no_credentials_of_other_origins(stack):
    """A command may read Datasette by the caller's cookie, so no page elsewhere may have a browser send it along."""
    origin = {"Origin": "https://evil.example"}
    answers = [stack.http.options("/-/agent/exec", headers={**origin, "Access-Control-Request-Method": "POST"}),
               stack.http.post("/-/agent/exec", headers={**origin, "Cookie": "ds_actor=x", "Content-Type": "application/json"}, content=b"{}"),
               stack.exec(headers=origin, command="true"), stack.http.get("/-/agent/exec", headers=origin)]
    for answer in answers:
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert answer.headers.get("Access-Control-Allow-Origin") in ("*", None), answer.headers
