"""Tokens and their limits, as a caller meets them: what is allowed, refused and told."""
import concurrent.futures
import json
import subprocess
import time

import pytest

import rig as rigs
from answers import check_limits, dictionary_of_integers, list_of_strings, problem
from processes import go_on, new_mark, running
from rig import until
from wire import Wire, exec_request


def refused(response, policy):
    body = problem(response, 429, "quota-exceeded")
    assert policy in body["violated-policies"], body
    assert isinstance(body["retry_after"], int) and body["retry_after"] >= 1, body
    check_limits(response.headers)
    return body


# -- rate ----------------------------------------------------------------------

@pytest.mark.smoke
def test_rate(stack):
    """Three at once, then one every twenty minutes."""
    token = stack.mint(rate="3/1h", burst=3)["token"]
    for left in (2, 1, 0):
        ran = stack.run("true", token=token)
        policies, state = check_limits(ran.headers)
        assert policies["rate"]["q"] == 3 and policies["rate"]["w"] == 3600 and policies["rate"]["sg-burst"] == 3, policies
        assert state["rate"]["r"] == left, state
    answer = stack.exec(token=token, command="true")
    body = refused(answer, "rate")
    assert 1000 <= body["retry_after"] <= 1500, body
    assert list_of_strings(answer.headers["RateLimit"])["rate"]["r"] == 0


def test_rate_comes_back(stack):
    token = stack.mint(rate="12/1m", burst=1)["token"]
    assert stack.run("echo 1", token=token).stdout == "1\n"
    wait = refused(stack.exec(token=token, command="true"), "rate")["retry_after"]
    assert wait <= 5
    time.sleep(wait)
    assert stack.run("echo 2", token=token).stdout == "2\n"


def test_refusals_take_nothing(stack):
    """Whoever is refused by one limit has not used up another one."""
    token, mark = stack.mint(rate="2/1h", burst=2, conc=1)["token"], new_mark()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(stack.run, f"sleep {mark}; echo busy", token=token, timeout_seconds=200)
        until(lambda: running(mark), "the token is busy")
        for _ in range(5):
            assert refused(stack.exec(token=token, command="true"), "concurrency")["violated-policies"] == ["concurrency"]
        go_on(mark)
        first = busy.result()
    assert left_of(first) == 1
    stack.until_settled(token)
    assert stack.run("true", token=token).exit_code == 0, "a refusal took from the rate"
    refused(stack.exec(token=token, command="true"), "rate")


def left_of(answer):
    return list_of_strings(answer.headers["RateLimit"])["rate"]["r"]


def test_too_much_input_takes_nothing(stack):
    token = stack.mint(rate="3/1h", burst=3, max_in="1KiB")["token"]
    assert left_of(stack.exec(token=token, argv=["cat"], stdin="x" * 1024)) == 2
    for _ in range(4):
        answer = stack.exec(token=token, argv=["cat"], stdin="x" * 1025)
        body = problem(answer, 413, "body-too-large")
        assert body["limit_bytes"] == 1024, body
        check_limits(answer.headers)
        assert left_of(answer) == 2
    stack.until_settled(token)
    assert left_of(stack.exec(token=token, command="true")) == 1


def test_leaving_while_waiting_for_a_sandbox_takes_nothing(rig, stack):
    """Nothing has run: rate and budget are as before."""
    gateway = rig.gateway(emulator=rig.emulator(), pool_hot=0, pool_max=1, pool_wait_seconds=120,
                          token={"rate": "1/1h", "burst": 1, "conc": 1, "budget": "100s/day", "actor_rate": "1/1h", "actor_burst": 1,
                                 "actor": "leaves"})
    mark = new_mark()
    with Wire(gateway.port) as busy:
        busy.send(exec_request(stack.token, json.dumps({"command": f"sleep {mark}", "timeout_seconds": 200}).encode()))
        until(lambda: running(mark), "another command has the only sandbox")
        for _ in range(2):
            with Wire(gateway.port) as wire:
                wire.send(exec_request(gateway.token, b'{"command": "true"}'))
                until(lambda: gateway.metrics().get("spritegate_exec_running") == 2, "the command waits")
            until(lambda: gateway.metrics().get("spritegate_exec_running") == 1, "the command is canceled")
            until(lambda: not stack.redis.zcard(f"sg:{{g}}:c:{gateway.kid}"), "its lease is given back")
        assert gateway.metrics().get("spritegate_exec_sandbox_seconds_total") == 0
    answer = gateway.run("true").headers
    assert dictionary_of_integers(answer["Exec-Budget"])["used"] == 0, answer
    problem(gateway.exec(command="true"), 429, "quota-exceeded")


def test_leaving_a_command_that_runs_is_no_refund(rig, stack):
    gateway = rig.gateway(pool_hot=0, token={"rate": "1/1h", "burst": 1})
    with Wire(gateway.port) as wire:
        mark = new_mark()
        wire.send(exec_request(gateway.token, json.dumps({"command": f"sleep {mark}", "timeout_seconds": 200}).encode()))
        until(lambda: running(mark), "the command runs")
    until(lambda: not stack.redis.zcard(f"sg:{{g}}:c:{gateway.kid}"), "its lease is given back")
    problem(gateway.exec(command="true"), 429, "quota-exceeded")


def test_the_longest_command_runs_and_a_longer_one_takes_nothing(rig):
    """What is too long for a sandbox is refused before one is taken."""
    limit = 500 * 1024
    gateway = rig.gateway(pool_hot=0, token={"rate": "1/1h", "burst": 1})
    argv = ["true", *["\n" * 50_000] * 5]      # a line end is two bytes in JSON
    argv.append("x" * (limit - sum(len(json.dumps(word)) + 1 for word in argv) - 3))
    body = problem(gateway.exec(argv=[*argv[:-1], argv[-1] + "x"]), 422, "invalid-request")
    assert body["errors"][0]["pointer"] == "/argv" and str(limit) in body["errors"][0]["detail"], body
    problem(gateway.exec(command="true", env={f"V{i}": "x" * 60_000 for i in range(9)}), 422, "invalid-request")
    assert gateway.metrics().get("spritegate_pool_creates_total") == 0, "a Sprite was made for it"
    assert gateway.run(argv=argv).exit_code == 0


def test_what_only_a_sprite_without_control_socket_refuses_takes_nothing(rig, stack):
    """That is known when it has been claimed: 422 with the limit, and the rate is given back."""
    from test_sprites_client import NO_ROUTE, Between
    emulator = rig.emulator()
    relay = rig.add(between := Between(emulator.url, NO_ROUTE), between.close)
    gateway = rig.gateway(emulator=emulator, sprites_url=relay.url, pool_hot=0, token={"rate": "1/1h", "burst": 1})
    answer = gateway.exec(argv=["true", "x" * 40_000])
    body = problem(answer, 422, "invalid-request")
    assert body["outcome"] == "not_started" and body["may_have_run"] is False and "36864" in body["errors"][0]["detail"], body
    until(lambda: not stack.redis.zcard(f"sg:{{g}}:c:{gateway.kid}"), "its lease is given back")
    assert gateway.run(argv=["true", "x" * 30_000]).exit_code == 0


def test_rate_of_one_token_is_not_another_one_s(stack):
    first, second = (stack.mint(rate="1/1h", burst=1, actor=actor)["token"] for actor in ("one", "two"))
    assert stack.run("true", token=first).exit_code == 0
    refused(stack.exec(token=first, command="true"), "rate")
    assert stack.run("true", token=second).exit_code == 0


def test_rate_of_an_actor(stack):
    tokens = [stack.mint(actor="shared", actor_rate="2/1h", actor_burst=2)["token"] for _ in range(2)]
    assert [stack.exec(token=tokens[i % 2], command="true").status_code for i in range(3)] == [200, 200, 429]


def test_rate_counts_on_all_gateways(rig, stack):
    """Limits are in Redis, not in a gateway."""
    other = rig.gateway()
    token = stack.mint(rate="2/1h", burst=2)["token"]
    assert stack.run("true", token=token).exit_code == 0
    assert other.run("true", token=token).exit_code == 0
    refused(stack.exec(token=token, command="true"), "rate")
    refused(other.exec(token=token, command="true"), "rate")


# -- concurrency ---------------------------------------------------------------

@pytest.mark.smoke
def test_concurrency(stack):
    token, mark = stack.mint(conc=2)["token"], new_mark()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(stack.run, f"sleep {mark}; echo x", token=token, timeout_seconds=200) for _ in range(2)]
        until(lambda: len(running(mark)) == 2, "both are running")
        answer = stack.exec(token=token, command="true")
        body = refused(answer, "concurrency")
        assert body["violated-policies"] == ["concurrency"], body
        state = list_of_strings(answer.headers["RateLimit"])
        assert state["concurrency"] == {"r": 0}, state
        assert list_of_strings(answer.headers["RateLimit-Policy"])["concurrency"] == {"q": 2, "qu": "concurrent-requests"}
        go_on(mark, 2)
        assert [one.result().stdout for one in busy] == ["x\n", "x\n"]
    stack.until_settled(token)
    assert stack.run("echo free", token=token).stdout == "free\n"


def test_concurrency_is_exact(stack):
    """Of many at the same moment no more than allowed run."""
    token, mark = stack.mint(conc=3)["token"], new_mark()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(stack.exec, token=token, command=f"sleep {mark}", timeout_seconds=200) for _ in range(20)]
        until(lambda: sum(one.done() for one in asked) >= 17, "all but three are refused")
        assert stack.redis.zcard("sg:{g}:c:" + token[4:20]) == 3
        go_on(mark, 3)
        statuses = [one.result().status_code for one in asked]
    assert statuses.count(200) == 3 and statuses.count(429) == 17, statuses


# -- budget, run time, output ---------------------------------------------------

def test_budget(rig, stack):
    """Sandbox time per day is reserved before and settled after: what was not used comes back."""
    token = stack.mint(budget="10s/day", max_run="4s")["token"]
    ran = stack.run("true", token=token, timeout_seconds=4)
    budget = dictionary_of_integers(ran.headers["Exec-Budget"])
    assert budget["limit"] == 10_000 and 0 < budget["reset"] <= 86_400, budget
    stack.until_settled(token)
    emulator = rig.emulator()
    emulator.view.fault("create_500")
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_wait_seconds=120)     # which has no sandbox for what is admitted
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(gateway.exec, token=token, command="true", timeout_seconds=4) for _ in range(4)]
        until(lambda: sum(one.done() for one in asked) >= 2, "two are refused")
        emulator.view.clear_faults()
        answers = [one.result() for one in asked]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429], "10 s hold two reservations of 4 s"
    for answer in answers:
        if answer.status_code == 429:
            body = refused(answer, "budget")
            held = dictionary_of_integers(answer.headers["Exec-Budget"])
            assert held["held"] >= 8000, held
            assert body["budget"]["limit"] == 10_000, "the body tells no budget"
    stack.until_settled(token)
    budget = dictionary_of_integers(stack.run("true", token=token, timeout_seconds=1).headers["Exec-Budget"])
    assert budget["used"] < 6000 and budget["held"] < 8000, f"more is charged than was used: {budget}"


def test_budget_that_is_used_up(stack):
    token = stack.mint(budget="2s/day", max_run="2s")["token"]
    assert stack.run("sleep 1.2", token=token).outcome in ("exited", "timed_out")
    stack.until_settled(token)
    answer = stack.exec(token=token, command="sleep 1", timeout_seconds=1)
    body = refused(answer, "budget")
    assert body["violated-policies"] == ["budget"]
    for _ in range(5):
        answer = stack.exec(token=token, command="sleep 1", timeout_seconds=1)
        body, reset = refused(answer, "budget"), dictionary_of_integers(answer.headers["Exec-Budget"])["reset"]
        assert body["retry_after"] == reset == body["budget"]["reset"], f"{body} {answer.headers['Exec-Budget']}"


def test_longest_run(stack):
    token = stack.mint(max_run="1s")["token"]
    ran = stack.run("echo x; sleep 30", token=token, timeout_seconds=30)
    assert (ran.outcome, ran.stdout) == ("timed_out", "x\n")
    assert ran.duration_ms < 20_000 * rigs.SLOWER
    assert stack.run("sleep 30", token=token).outcome == "timed_out", "the default of 30 s is above the token's 1 s"


def test_largest_output(stack):
    token = stack.mint(max_out="1KiB")["token"]
    for fields in ({}, {"max_output_bytes": 1_000_000}):
        ran = stack.run("head -c 5000 /dev/zero | tr '\\0' x", token=token, **fields)
        assert ran.stdout_truncated is True and ran.stdout_bytes == 5000
        assert ran.stdout.count("x") == 1024, f"{ran.stdout.count('x')} bytes kept with --max-out 1KiB"
    assert stack.run("echo 123456", token=token, max_output_bytes=2).stdout.replace("\n", "").startswith("1")
    generous = stack.mint(max_out="2MiB")["token"]
    ran = stack.run("head -c 1500000 /dev/zero | tr '\\0' x", token=generous)
    assert ran.stdout_truncated is False, "the token's own cap is its default"


def test_ceiling_of_the_gateway(rig):
    gateway = rig.gateway(exec_max_output_bytes="2KiB", token={"max_out": "1MiB"})
    for wish in (100_000, 2**63, 10**30, 10**300):
        ran = gateway.run("head -c 5000 /dev/zero | tr '\\0' x", max_output_bytes=wish)
        assert ran.stdout_truncated is True and ran.stdout.count("x") == 2048, wish


# -- programs -------------------------------------------------------------------

def test_allowed_programs(stack):
    token = stack.mint(cmd="ls,python3")["token"]
    assert stack.run(argv=["ls", "/"], token=token).exit_code == 0
    assert stack.run(argv=["python3", "-c", "print(1)"], token=token).stdout == "1\n"
    started = len(stack.sprites.state()["starts"])
    for fields in ({"argv": ["cat", "/etc/passwd"]}, {"command": "ls"}, {"argv": ["/bin/ls"]}, {"argv": ["l"]}, {"argv": ["ls python3"]},
                   {"argv": ["./ls"]}):
        body = problem(stack.exec(token=token, **fields), 403, "command-denied")
        assert body["command"] == (fields["argv"][0] if "argv" in fields else "bash"), f"{fields}: {body}"
        assert not {"policy", "policy_version"} & set(body), f"a policy that the token does not have: {body}"
    assert len(stack.sprites.state()["starts"]) == started, "a program that is not allowed was started"


def test_a_denial_names_the_policy_that_the_token_follows(stack):
    minted = stack.mint(cmd="ls")
    stack.redis.hset("sg:{g}:k:" + minted["kid"], "pol", "agents")
    stack.redis.hset("sg:{g}:p:agents", "ver", 7)
    body = problem(stack.exec(token=minted["token"], command="true"), 403, "command-denied")
    assert (body["policy"], body["policy_version"]) == ("agents", 7), body
    redis_key = "sg:{g}:k:" + minted["kid"]
    stack.redis.hset(redis_key, mapping={"cmds": "", "max_in": 3})
    body = problem(stack.exec(token=minted["token"], command="true", stdin="four"), 413, "body-too-large")
    assert (body["limit_bytes"], body["policy"], body["policy_version"]) == (3, "agents", 7), body
    stack.redis.hset(redis_key, "scopes", "other")
    body = problem(stack.exec(token=minted["token"], command="true"), 403, "insufficient-scope")
    assert (body["policy"], body["policy_version"]) == ("agents", 7), body


def test_a_shell_line_counts_as_bash(stack):
    token = stack.mint(cmd="bash")["token"]
    assert stack.run("echo yes", token=token).stdout == "yes\n"
    problem(stack.exec(token=token, argv=["ls"]), 403, "command-denied")


# -- networks, variables, output per day, shadow, named policies ------------------

def test_networks(rig, stack):
    """The client is whom the trusted proxies name."""
    gateway = rig.gateway(trusted_proxies="127.0.0.1")
    token = stack.mint(ip="192.0.2.0/24,2001:db8::/32")["token"]
    body = problem(gateway.exec(token=token, command="true"), 403, "ip-denied")
    assert "policy" not in body
    for address, allowed in (("192.0.2.9", True), ("192.0.3.9", False), ("2001:db8::9", True), ("2001:db9::9", False)):
        answer = gateway.exec(token=token, command="true", headers={"X-Forwarded-For": address})
        assert answer.status_code == (200 if allowed else 403), (address, answer.text)
    problem(stack.exec(token=token, command="true", headers={"X-Forwarded-For": "192.0.2.9"}), 403, "ip-denied")


def test_variables(stack):
    token = stack.mint(env="LANG,LC_*")["token"]
    assert stack.run("echo $LC_ALL", token=token, env={"LC_ALL": "C", "LANG": "C"}).stdout == "C\n"
    assert stack.run("true", token=token).exit_code == 0
    body = problem(stack.exec(token=token, command="true", env={"LANG": "C", "LD_PRELOAD": "x"}), 403, "environment-denied")
    assert body["variable"] == "LD_PRELOAD", body
    many = {f"LC_{i}_{'x' * 100}": "" for i in range(100)}
    problem(stack.exec(token=token, command="true", env=many), 403, "environment-denied")
    assert stack.run("true", token=stack.mint()["token"], env=many).exit_code == 0


def test_output_per_day(stack):
    token = stack.mint(budget_out="10KiB/day", max_out="2KiB")["token"]
    ran = stack.run("head -c 1500 /dev/zero", token=token)
    budget = dictionary_of_integers(ran.headers["Exec-Budget"])
    assert (budget["out_limit"], budget["out_used"], budget["out_held"]) == (10_240, 0, 4096), budget
    used = []
    for _ in range(4):
        stack.until_settled(token)
        answer = stack.exec(token=token, command="head -c 5000 /dev/zero")
        used.append(dictionary_of_integers(answer.headers["Exec-Budget"])["out_used"])
        if answer.status_code != 200:
            break
    assert used == [1500, 5596, 9692], "what is charged is what was written, at most what may be"
    body = refused(answer, "output-budget")
    assert body["budget"]["out_used"] == 9692 and body["retry_after"] == body["budget"]["reset"], body
    assert stack.run("echo ok", token=token, max_output_bytes=200).stdout == "ok\n"


def test_shadow_refuses_nobody_and_tells(rig, stack):
    gateway = rig.gateway()
    token = stack.mint(rate="1/1h", burst=1, cmd="ls", shadow="rate,command")["token"]
    for _ in range(3):
        assert gateway.run("echo ok", token=token).stdout == "ok\n"
    line = gateway.until_logged(lambda line: len(line.get("shadow", [])) == 2)
    assert line["shadow"] == ["command", "rate"] and line["policy_version"] == 1 and line["status"] == 200, line
    metrics = gateway.metrics()
    assert metrics.get("spritegate_exec_shadowed_total", policy="rate") == 2
    assert metrics.get("spritegate_exec_shadowed_total", policy="command") == 3


def test_a_policy_acts_on_all_its_tokens_at_once(rig, stack):
    gateway, name = rig.gateway(), "team-" + stack.mint()["kid"]
    cli(stack, "set", name, "--conc", "2", noun="policy")
    tokens = [stack.mint(actor=actor, policy=name, rate=None, burst=None, conc=None)["token"] for actor in ("one", "two")]
    for token in tokens:
        assert gateway.run("true", token=token).exit_code == 0
    cli(stack, "set", name, "--cmd", "ls", noun="policy")
    for token in tokens:
        body = problem(gateway.exec(token=token, command="true"), 403, "command-denied")
        assert (body["policy"], body["policy_version"]) == (name, 2), body
        gateway.get("/-/agent/exec/quota", headers={"Authorization": f"Bearer {token}"})     # no decision
    metrics = gateway.metrics()
    assert metrics.get("spritegate_policy_version", policy=name) == 2
    assert [metrics.get("spritegate_policy_decisions_total", policy=name, outcome=outcome) for outcome in ("allow", "deny")] == [2, 2]
    gateway.until_logged(lambda line: (line.get("policy"), line.get("policy_version"), line["status"]) == (name, 2, 403))
    gateway.until_logged(lambda line: (line.get("policy"), line.get("policy_version"), line["status"]) == (name, 1, 200))


def test_rotation_without_a_gap(stack):
    minted = stack.mint()
    new = json.loads(cli(stack, "rotate", minted["kid"], "--json"))["token"]
    for token in (minted["token"], new):
        assert stack.run("true", token=token).exit_code == 0
    newer = json.loads(cli(stack, "rotate", minted["kid"], "--grace", "0", "--json"))["token"]
    for token in (minted["token"], new):
        problem(stack.exec(token=token, command="true"), 401, "invalid-token")
    assert stack.run("true", token=newer).exit_code == 0


# -- end of a token -------------------------------------------------------------

def cli(stack, *words, noun="token"):
    done = subprocess.run([rigs.BINARY, noun, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=rigs.PATIENCE, check=False,
                          env=rigs.clean_environment({"SPRITEGATE_PEPPER": stack.pepper, "SPRITEGATE_REDIS_URL": stack.redis_url}))
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def test_revoked(stack):
    """From the next call on."""
    minted = stack.mint()
    assert stack.run("true", token=minted["token"]).exit_code == 0
    cli(stack, "revoke", minted["kid"])
    problem(stack.exec(token=minted["token"], command="true"), 401, "invalid-token")


def test_expired(stack):
    token = stack.mint(expires="1s")["token"]
    time.sleep(1.1)
    problem(stack.exec(token=token, command="true"), 401, "invalid-token")


def test_other_pepper(rig, stack):
    """A token is worth nothing to a gateway with another pepper."""
    other = rig.gateway(pepper="another pepper with more than thirty-two characters")
    problem(other.exec(token=stack.token, command="true"), 401, "invalid-token")


def test_redis_holds_no_secret(stack):
    """Only the HMAC of a token's secret is stored."""
    import hashlib
    import hmac
    token = stack.mint()["token"]
    kid, secret = token[4:20], token[21:-6]
    record = stack.redis.hgetall("sg:{g}:k:" + kid)
    assert record["mac"] == hmac.new(stack.pepper.encode(), secret.encode(), hashlib.sha256).hexdigest()
    stored = json.dumps(record)
    assert secret not in stored and token not in stored and stack.pepper not in stored, "a secret is stored"
    assert not [key for key in stack.redis.scan_iter("*") if secret in key], "a secret is part of a key"


def test_show_and_list(stack):
    minted = stack.mint(actor="Somebody", rate="7/1m", burst=3, conc=2, budget="1h/day", max_run="30s", max_out="1MiB", cmd="ls")
    stack.run(argv=["ls"], token=minted["token"])
    stack.until_settled(minted["token"])
    shown = json.loads(cli(stack, "show", minted["kid"], "--json"))
    assert (shown["actor"], shown["status"], shown["rate"], shown["burst"], shown["concurrency"]) == ("Somebody", "active", 7, 3, 2), shown
    assert shown["usage"]["commands"] == 1 and shown["usage"]["running"] == 0, shown
    listed = json.loads(cli(stack, "list", "--json"))
    assert minted["kid"] in [one["kid"] for one in listed]
    for text in (json.dumps(shown), json.dumps(listed)):
        assert minted["token"][21:-6] not in text and "mac" not in json.loads(cli(stack, "show", minted["kid"], "--json"))


# -- what a caller is told -------------------------------------------------------

def test_limits_are_told_with_every_answer_of_a_known_token(stack):
    token = stack.mint(rate="50/1m", burst=5, conc=4, cmd="true", budget="100s/day", max_run="10s")["token"]
    answers = [stack.exec(token=token, argv=["true"]), stack.exec(token=token, argv=["false"])]
    assert [answer.status_code for answer in answers] == [200, 403]
    for answer in answers:
        policies, state = check_limits(answer.headers)
        assert set(policies) == {"rate", "concurrency"}, policies
        assert policies["rate"] == {"q": 50, "w": 60, "sg-burst": 5}, policies
        assert "Exec-Budget" in answer.headers


def test_retry_after_is_never_before_the_window(stack):
    token = stack.mint(rate="1/10m", burst=1)["token"]
    stack.run("true", token=token)
    answer = stack.exec(token=token, command="true")
    refused(answer, "rate")
    assert int(answer.headers["Retry-After"]) >= list_of_strings(answer.headers["RateLimit"])["rate"].get("t", 0), answer.headers
