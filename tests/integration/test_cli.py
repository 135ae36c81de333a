"""The command line: settings are checked before anything starts, and every refusal names its cause."""
import re
import shlex
import subprocess

import pytest

from answers import EXPLAINED
from rig import BINARY, TOP, clean_environment, free_port

PEPPER = "0123456789abcdef0123456789abcdef"
GOOD = {"SPRITEGATE_PEPPER": PEPPER, "SPRITEGATE_SPRITES_TOKEN": "secret-api-token"}


def spritegate(*words, under=(), **settings):
    env = {**GOOD, **{f"SPRITEGATE_{name}": value for name, value in settings.items()}}
    return subprocess.run([*under, BINARY, *words], env=clean_environment({name: value for name, value in env.items() if value is not None}),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.smoke
def test_check_config_shows_the_settings_without_secrets():
    done = spritegate("check-config", REDIS_URL="redis://user:pass-word@127.0.0.1:6379/1")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(" = ", 1) for line in done.stdout.splitlines())
    assert lines["listen"] == "[::]:8080" and lines["pool_hot"] == "2" and lines["pool_max"] == "10" and lines["cache_bytes"] == "0"
    assert lines["exec_timeout_seconds"] == "30" and lines["exec_max_timeout_seconds"] == "300"
    assert lines["exec_max_output_bytes"] == str(64 << 20) and lines["max_head_bytes"] == "32768" and lines["max_body_bytes"] == str(128 << 20)
    assert lines["redis_timeout_ms"] == "40" and lines["exec_max_body_bytes"] == str(16 << 20)
    for secret in (PEPPER, "secret-api-token", "pass-word"):
        assert secret not in done.stdout


WRONG = {
    # setting -> (value, what the message must say)
    "POOL_HOT": [("many", "whole number"), ("-1", "whole number"), ("1000000", "100"), ("11", "pool_max"), ("2.5", "whole number"), ("", "whole number")],
    "POOL_MAX": [("0", "1 to"), ("99999", "1000")],
    "MAX_HEAD_BYTES": [("1KiB", "4096"), ("129KiB", "131072"), ("32KB", "KiB"), ("32 KiB x", "KiB"), ("0x8000", "bytes")],
    "MAX_BODY_BYTES": [("lots", "KiB"), ("1TiB", "KiB")],
    "EXEC_TIMEOUT_SECONDS": [("0", "0.001 to"), ("301", "exec_max_timeout_seconds"), ("30s", "number of seconds")],
    "REDIS_TIMEOUT_MS": [("0", "1 to")],
    "WORKERS": [("65", "64")],
    "PEPPER": [("short", "32")],
    "CACHE_BYTES": [("17GiB", "17179869184"), ("off", "bytes")],
    "POOL_WARM": [("1001", "1000"), ("some", "auto")],
    "INSTANCE": [("x" * 64, "63")],
    "LISTEN": [("a\x01b", "control")],
}


@pytest.mark.parametrize(("name", "value", "says"), [(name, value, says) for name, cases in WRONG.items() for value, says in cases])
def test_wrong_settings_name_the_key_and_the_limit(name, value, says):
    for command in ("check-config", "serve"):
        done = spritegate(command, **{name: value})
        assert done.returncode == 2, f"{command}: exit {done.returncode}: {done.stdout}{done.stderr}"
        message = done.stderr
        assert name.lower() in message, f"the key is not named: {message}"
        assert says in message, f"the limit is not named: {message}"
        if name == "PEPPER":
            assert value not in message, "a secret is shown"


def test_every_fault_is_named_at_once():
    done = spritegate("check-config", POOL_HOT="x", WORKERS="999", PEPPER="short")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("pool_hot", "workers", "pepper")), done.stderr


def test_too_few_descriptors_are_told_with_what_helps():
    """The defaults are content with the usual 1024."""
    def check(most, **settings):
        return spritegate("check-config", under=["prlimit", f"--nofile={most}:{most}"], WORKERS="4", **settings)
    assert check(1024).returncode == 0, check(1024).stderr
    for done in (check(600), check(1024, POOL_MAX="200")):
        assert done.returncode == 2
        assert all(word in done.stderr for word in ("descriptors", "ulimit -n", "LimitNOFILE", "workers", "pool_max")), done.stderr


@pytest.mark.parametrize("name", ["POOL_HOTT", "pool_hot", "TOKEN", "X"])
def test_unknown_variables_are_refused(name):
    for command in ("check-config", "serve"):
        done = spritegate(command, **{name: "1"})
        assert done.returncode == 2 and f"SPRITEGATE_{name}" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["PEPPER", "SPRITES_TOKEN"])
def test_required_settings(name):
    done = spritegate("serve", **{name: None})
    assert done.returncode == 2 and f"SPRITEGATE_{name}" in done.stderr, done.stderr


@pytest.mark.parametrize(("name", "value"), [("REDIS_URL", "http://127.0.0.1"), ("DATASETTE_URL", "ftp://x"), ("SPRITES_URL", "nonsense"), ("LISTEN", "nonsense"),
                                             ("LISTEN", "127.0.0.1:99999"), ("ADMIN_LISTEN", ":x"), ("TRUSTED_PROXIES", "10.0.0.0/99"), ("ACCESS_LOG", "/no/such/folder/x"),
                                             ("DATASETTE_CA_FILE", "/no/such/file"), ("DATASETTE_CA_FILE", "/etc")])
def test_values_that_only_serving_can_judge(name, value):
    """They end the start, with the key in the message."""
    ports = {"LISTEN": f"127.0.0.1:{free_port()}", "ADMIN_LISTEN": f"127.0.0.1:{free_port()}"}
    done = spritegate("serve", **{**ports, name: value})
    assert done.returncode in (1, 2), f"exit {done.returncode}: {done.stderr}"
    assert name.lower() in done.stderr.lower(), f"the key is not named: {done.stderr}"


@pytest.mark.parametrize(("name", "value"), [("DATASETTE_URL", "http://user:pass-word@127.0.0.1:1"), ("DATASETTE_URL", "pass-word@host"),
                                             ("REDIS_URL", "redis://user:pass-word@:x"), ("SPRITES_URL", "ftp://user:pass-word@api.sprites.dev")])
def test_an_address_that_is_refused_is_not_shown_with_its_password(name, value):
    for command in ("check-config", "serve"):
        done = spritegate(command, LISTEN=f"127.0.0.1:{free_port()}", ADMIN_LISTEN=f"127.0.0.1:{free_port()}", **{name: value})
        assert done.returncode in (1, 2) and name.lower() in done.stderr, done.stderr
        assert "pass-word" not in done.stdout + done.stderr, done.stdout + done.stderr


def test_port_in_use():
    import socket
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = spritegate("serve", LISTEN=f"127.0.0.1:{port}", ADMIN_LISTEN=f"127.0.0.1:{free_port()}")
    assert done.returncode == 1 and "listen" in done.stderr and "in use" in done.stderr, done.stderr


@pytest.mark.parametrize("own", ["ADMIN_LISTEN", "LISTEN"])
def test_a_second_gateway_on_the_same_address(rig, own):
    """Started twice by mistake: it says so and ends, and what serves is not disturbed."""
    emulator = rig.emulator()
    first = rig.gateway(emulator=emulator, pool_hot=1, workers=2, token=False)
    first.until_ready()
    sprites = emulator.view.names()
    env = clean_environment({**first.settings, f"SPRITEGATE_{own}": f"127.0.0.1:{free_port()}"})
    second = subprocess.run([BINARY, "serve"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    same = "SPRITEGATE_LISTEN" if own == "ADMIN_LISTEN" else "SPRITEGATE_ADMIN_LISTEN"
    assert second.returncode == 1 and "in use" in second.stderr and env[same] in second.stderr, second.stderr
    assert first.ready() and emulator.view.names() == sprites


def test_file(tmp_path):
    path = tmp_path / "spritegate.conf"
    path.write_text("# a comment\n\npool_hot = 3\n  pool_max=5  \nlisten = 127.0.0.1:1234\n")
    done = spritegate("check-config", "--config", str(path), POOL_MAX="7")
    assert done.returncode == 0, done.stderr
    assert "pool_hot = 3\n" in done.stdout and "pool_max = 7\n" in done.stdout, "the environment wins over the file"
    for text, says in (("pool_hott = 3\n", "pool_hott"), ("pool_hot\n", "name = value"), ("pool_hot = x\n", "pool_hot")):
        path.write_text("\n" + text)
        wrong = spritegate("check-config", "--config", str(path))
        assert wrong.returncode == 2 and says in wrong.stderr, wrong.stderr
    missing = spritegate("check-config", "--config", str(tmp_path / "none"))
    assert missing.returncode == 2 and "none" in missing.stderr


def test_usage():
    for words, code in ((("help",), 0), (("--help",), 0), (("version",), 0), (("help", "config"), 0), (("help", "manual"), 0), (("help", "nonsense"), 2), ((), 2), (("nonsense",), 2), (("serve", "--nope"), 2),
                        (("check-config", "x"), 2)):
        done = spritegate(*words)
        assert done.returncode == code, f"{words}: {done.returncode} {done.stderr}"
        assert (done.stdout if code == 0 else done.stderr).strip(), f"{words} says nothing"
    table = spritegate("help", "config").stdout
    for name in ("LISTEN", "ADMIN_LISTEN", "WORKERS", "INSTANCE", "DATASETTE_URL", "REDIS_URL", "SPRITES_URL", "SPRITES_TOKEN", "PEPPER", "MAX_HEAD_BYTES",
                 "MAX_BODY_BYTES", "EXEC_MAX_BODY_BYTES", "REDIS_TIMEOUT_MS", "POOL_HOT", "POOL_WARM", "POOL_MAX", "CACHE_BYTES", "EXEC_TIMEOUT_SECONDS",
                 "EXEC_MAX_TIMEOUT_SECONDS", "EXEC_MAX_OUTPUT_BYTES", "ACCESS_LOG"):
        assert f"`SPRITEGATE_{name}`" in table, f"{name} is not in the table of settings"


@pytest.mark.parametrize(("topic", "page"), [("config", "docs/CONFIG.md"), ("problems", "docs/problems.md")])
def test_pages_made_by_help_are_up_to_date(topic, page):
    done = spritegate("help", topic)
    assert done.returncode == 0 and done.stdout == (TOP / page).read_text(encoding="utf-8"), f"{page} differs"


def test_every_code_in_the_source_is_explained():
    """And nothing is explained that no answer has."""
    text = "".join(path.read_text(encoding="utf-8") for path in (TOP / "gateway").rglob("*.c")
                   if not path.name.endswith(("_test.c", "_fuzz.c")) and path.name != "problem_types.c")
    for code in EXPLAINED:
        assert f'"{code}"' in text or f'{code}\\"' in text, f"{code} is explained and never answered"
    used = set(re.findall(r'\.code = (?:late \? "[a-z-]+" : )?"([a-z-]+)"', text)) | set(re.findall(r'\b[45]\d\d, "([a-z-]+)"', text))
    assert len(used) > 15 and used <= set(EXPLAINED), used - set(EXPLAINED)


TOKEN_FAULTS = [((), "--actor"), (("--actor", "a", "--rate", "60"), "--rate"), (("--actor", "a", "--rate", "0/1m"), "--rate"), (("--actor", "a", "--conc", "0"), "--conc"),
                (("--actor", "a", "--conc", "x"), "--conc"), (("--actor", "a", "--budget", "600s"), "--budget"), (("--actor", "a", "--max-run", "5"), "--max-run"),
                (("--actor", "a", "--max-out", "1MB"), "--max-out"), (("--actor", "a b"), "--actor"), (("--actor", "a", "--nope"), "--nope"), (("--actor",), "--actor"),
                (("--actor", "a", "--actor", "b"), "--actor"), (("--actor", "a", "--expires", "-1d"), "--expires"), (("--actor", "a", "--cmd", ""), "--cmd")]


@pytest.mark.parametrize(("words", "names"), TOKEN_FAULTS)
def test_token_create_names_what_is_wrong(words, names):
    done = spritegate("token", "create", *words)
    assert done.returncode == 2 and names in done.stderr and done.stdout == "", f"{done.returncode} {done.stdout} {done.stderr}"


def test_token_commands(stack):
    def token(*words, **settings):
        return spritegate("token", *words, PEPPER=stack.pepper, REDIS_URL=stack.redis_url, **settings)

    made = token("create", "--actor", "cli")
    assert made.returncode == 0 and made.stdout.startswith("sgt_") and len(made.stdout.strip()) == 59, made.stdout
    kid = made.stdout[4:20]
    assert stack.run("echo ok", token=made.stdout.strip()).stdout == "ok\n"
    assert kid in token("list").stdout and "cli" in token("show", kid).stdout
    assert token("revoke", kid).returncode == 0
    for words, code in ((("show", "0" * 16), 1), (("revoke", "0" * 16), 1), (("show", "x"), 2), (("show",), 2), (("nonsense",), 2), ((), 2)):
        done = token(*words)
        assert done.returncode == code and done.stderr.strip(), f"{words}: {done.returncode} {done.stderr}"
    away = spritegate("token", "list", PEPPER=stack.pepper, REDIS_URL="redis://127.0.0.1:1")
    assert away.returncode == 1 and "Redis" in away.stderr, away.stderr


COMPLETION = TOP / "deploy/spritegate.bash-completion"


@pytest.mark.parametrize("line, wanted", [
    ("", {"serve", "doctor", "token", "policy", "lease", "session", "pool", "health", "help", "version", "check-config"}), ("to", {"token"}),
    ("token re", {"revoke", "resume"}), ("token ", {"create", "list", "show", "set", "rotate", "suspend", "resume", "revoke", "export", "import"}),
    ("lease ", {"list", "kill"}), ("session ", {"list", "close"}), ("session close --", {"--kid", "--all", "--yes", "--json"}), ("pool ", {"list"}), ("pool list --", {"--json"}), ("policy ", {"set", "list", "show", "diff", "check"}), ("help ", {"config", "manual", "problems"}),
    ("token create --bu", {"--budget", "--budget-out", "--burst"}), ("policy set --eg", {"--egress"}),
    ("token revoke --", {"--actor", "--yes", "--kill"}), ("lease kill --", {"--kid", "--actor", "--all", "--yes", "--json"}), ("nonsense ", set())])
def test_completion_in_bash(line, wanted):
    words = ["spritegate", *line.split(" ")]
    script = f"""source {shlex.quote(str(COMPLETION))}; COMP_WORDS=("$@"); COMP_WORDS[0]={shlex.quote(str(BINARY))}; COMP_CWORD=$(($# - 1)); _spritegate; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-uc", script, "bash", *words], env=clean_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == wanted
