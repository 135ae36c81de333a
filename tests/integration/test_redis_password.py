"""Whoever can read what the gateway tells still does not know the password of Redis."""
import base64
import pathlib
import subprocess
import urllib.parse

import pytest

import rig as rigs
from rig import until

PASSWORD = "hunter2/of@redis"
FORMS = [PASSWORD, urllib.parse.quote(PASSWORD, safe=""), PASSWORD.partition("/")[0], base64.b64encode(PASSWORD.encode()).decode()]


@pytest.fixture
def store(rig):
    redis = rig.redis()
    redis.client.acl_setuser("gateway", enabled=True, passwords=["+" + PASSWORD], keys=["*"], channels=["*"], categories=["+@all"])
    redis.url = f"redis://gateway:{FORMS[1]}@127.0.0.1:{redis.port}"
    return redis


def hidden(where, text):
    assert not any(form in text for form in FORMS), f"{where} tells it: {text[-3000:]}"


def arguments(pid):
    """Of a process and of its threads."""
    return "".join(path.read_text(errors="replace") for name in ("cmdline", "comm", "status")
                   for path in [pathlib.Path(f"/proc/{pid}/{name}"), *pathlib.Path(f"/proc/{pid}/task").glob(f"*/{name}")])


def everything_told(gateway):
    return {"log": gateway.log, "access log": gateway.out, "metrics": gateway.admin_http.get("/metrics").text,
            "health": gateway.health().text, "readiness": gateway.admin_http.get("/health/ready").text,
            "status page": gateway.admin_http.get("/").text, "processes": arguments(gateway.pid)}


def commands(gateway, url):
    """What the program prints to whoever has the settings."""
    env = rigs.clean_environment({**gateway.settings, "SPRITEGATE_REDIS_URL": url})
    for words in ("--help", "help config", "help manual", "check-config", "doctor", "doctor --json", "token list", "lease list --json"):
        done = subprocess.run([rigs.BINARY, *words.split()], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              check=False)
        yield words, done.stdout + done.stderr


def test_with_the_password_it_works_and_tells_nobody(rig, store):
    gateway = rig.gateway(redis=store)
    assert gateway.run("env; cat /proc/*/cmdline; echo done").stdout.endswith("done\n")
    hidden("a command", gateway.run("env; cat /proc/*/cmdline /proc/*/environ 2>/dev/null; true").stdout)
    store.client.execute_command("CLIENT", "KILL", "USER", "gateway")
    until(lambda: gateway.exec(command="true").status_code == 200, "commands run again", interval=0.1)
    for where, text in everything_told(gateway).items():
        assert text
        hidden(where, text)
    for words, text in commands(gateway, store.url):
        assert text
        hidden(words, text)


def test_a_password_that_redis_refuses_is_not_told_either(rig, store):
    store.client.acl_setuser("gateway", enabled=True, reset_passwords=True, passwords=["+another"], keys=["*"], categories=["+@all"])
    gateway = rig.gateway(redis=store, wait=False, token=False)
    gateway.until_up(gateway.serves)
    until(lambda: "WRONGPASS" in gateway.log, "the log says what Redis answers")
    for where, text in everything_told(gateway).items():
        hidden(where, text)
    told = dict(commands(gateway, store.url))
    assert "WRONGPASS" in told["doctor"] and "WRONGPASS" in told["token list"]
    for words, text in told.items():
        hidden(words, text)
