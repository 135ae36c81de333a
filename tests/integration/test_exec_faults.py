"""Whatever the Sprites API does: an explicit outcome, never an exit code that nobody sent, no second start, no leak."""
import threading

import pytest

import answers
from rig import SLOWER, leases, until

COMMAND = "echo output; sleep 0.1; exit 7"

pytestmark = pytest.mark.timeout(120 * max(1, SLOWER // 2))


@pytest.fixture(scope="module")
def sprites(shared_rig):
    return shared_rig.emulator()


@pytest.fixture(scope="module")
def gateway(shared_rig, sprites):
    gateway = shared_rig.gateway(emulator=sprites, pool_hot=1, pool_max=4, pool_wait_seconds=5)
    gateway.until_ready()
    return gateway


@pytest.fixture
def settled(gateway, sprites):
    """After the test: one hot Sprite and no other, no lease, and commands run again."""
    yield
    sprites.view.clear_faults()
    gateway.until_ready(40)
    sprites.view.until_alive(1, 40)
    until(lambda: leases(gateway_redis(gateway)) == 0, "no lease is held")
    ran = gateway.run("echo well; exit 7")
    assert (ran.stdout, ran.exit_code) == ("well\n", 7), "the gateway did not recover"
    check_starts(sprites)


def gateway_redis(gateway):
    import redis
    return redis.Redis.from_url(gateway.settings["SPRITEGATE_REDIS_URL"], decode_responses=True)


def check_starts(sprites):
    twice = {exec_id: count for exec_id, count in sprites.view.state()["starts"].items() if count > 1}
    assert not twice, f"started more than once: {twice}"


def explicit(response, code=7, output="output\n"):
    """The outcome of COMMAND in a world that lies; an exit code must be the command's own."""
    if response.status_code == 200:
        ran = answers.Ran(response)
        if ran.outcome == "exited":
            assert ran.exit_code == code, f"exit code {ran.exit_code} was never sent"
            assert ran.stdout == output, f"a complete answer without its output: {ran.stdout!r}"
        return ran.outcome, ran.exec_id
    body = answers.unknown(response) if response.status_code == 502 else answers.not_started(response)
    return body["outcome"], body["exec_id"]


def calls(gateway, count, **fields):
    fields = {"command": COMMAND, "timeout_seconds": 10, **fields}
    return [explicit(gateway.exec(**fields)) for _ in range(count)]


ALWAYS = {
    # what strikes every command, and which outcomes are right
    "cut_before_start": ({}, {"not_started", "unknown"}, 0),
    "cut_after_start": ({}, {"not_started", "unknown"}, 1),
    "cut_before_output": ({}, {"unknown"}, 1),
    "cut_after_output": ({}, {"unknown"}, 1),
    "cut_before_exit": ({}, {"unknown"}, 1),
    "cut_mid_frame": ({}, {"unknown"}, 1),
    "no_exit_code": ({}, {"unknown"}, 1),
    "kill_vm": ({}, {"unknown"}, 1),
    "duplicate_exit": ({"code": 0}, {"exited"}, 1),
    "slow_drip": ({"bytes": 1}, {"exited"}, 1),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", ALWAYS)
def test_fault_of_every_command(gateway, sprites, settled, name):
    more, outcomes, starts = ALWAYS[name]
    gateway.until_ready()
    sprites.view.fault(name, match={"sprite": "*"}, **more)
    for outcome, exec_id in calls(gateway, 3):
        assert outcome in outcomes, f"{name}: {outcome}"
        assert sprites.view.starts(exec_id) <= 1, f"{name}: {exec_id} was started more than once"
        if outcome == "not_started" and not starts:
            assert sprites.view.starts(exec_id) == 0, "not_started, yet it was started"


@pytest.mark.parametrize("name", ["cut_before_exit", "cut_after_output", "no_exit_code", "kill_vm"])
def test_unknown_keeps_what_was_received(gateway, sprites, settled, name):
    gateway.until_ready()
    sprites.view.fault(name, **({"delay_ms": 600} if name == "kill_vm" else {}))
    body = answers.unknown(gateway.exec(command="echo received; sleep 0.3; [ %s != kill_vm ] || sleep 30" % name))
    assert body["stdout"] == "received\n" and body["stdout_bytes"] == 9, body
    assert body["encoding"]["stdout"] == "utf-8", body


@pytest.mark.parametrize("name", ["cut_before_start", "cut_before_exit", "no_exit_code", "duplicate_exit"])
def test_one_fault_only(gateway, sprites, settled, name):
    gateway.until_ready()
    sprites.view.fault(name, count=1)
    for outcome, exec_id in calls(gateway, 3):
        assert sprites.view.starts(exec_id) <= 1
        assert outcome in ("exited", "unknown", "not_started")


def test_command_that_was_never_sent_is_tried_elsewhere(gateway, sprites, settled):
    """A Sprite whose socket broke while it waited costs the caller nothing."""
    gateway.until_ready()
    for name in sprites.view.names():
        sprites.view.pause(name)
    ran = gateway.run("echo fine; exit 7")
    assert (ran.stdout, ran.exit_code) == ("fine\n", 7)
    assert sprites.view.starts(ran.exec_id) == 1


@pytest.mark.parametrize("delay", [0, 20, 50, 150])
def test_pause_under_a_running_command(gateway, sprites, settled, delay):
    gateway.until_ready()
    sprites.view.fault("pause_under_socket", on="start", delay_ms=delay)
    for outcome, exec_id in calls(gateway, 2):
        assert outcome in ("unknown", "not_started", "exited"), outcome
        assert sprites.view.starts(exec_id) <= 1


def test_pause_under_an_idle_socket(gateway, sprites, settled):
    gateway.until_ready()
    sprites.view.fault("pause_under_socket", on="open", delay_ms=30, count=4)
    for outcome, exec_id in calls(gateway, 4):
        assert sprites.view.starts(exec_id) <= 1, outcome


def test_stalled_answer_is_waited_for(gateway, sprites, settled):
    gateway.until_ready()
    sprites.view.fault("stall", delay_ms=1500)
    ran = gateway.run(COMMAND, timeout_seconds=20)
    assert (ran.outcome, ran.exit_code, ran.stdout) == ("exited", 7, "output\n")


def test_stalled_answer_past_the_timeout(gateway, sprites, settled):
    gateway.until_ready()
    sprites.view.fault("stall", delay_ms=60_000)
    response = gateway.exec(command=COMMAND, timeout_seconds=1)
    outcome, exec_id = explicit(response)
    assert outcome in ("timed_out", "unknown"), outcome
    assert sprites.view.starts(exec_id) == 1


JSON_FIELDS = ["type", "exit_code", "id", "args", "ok", "exitCode", "name", "status", "rules", "session_id"]


@pytest.mark.parametrize("name", ["wrong_type", "missing_field"])
@pytest.mark.parametrize("field", JSON_FIELDS)
def test_messages_that_are_not_as_documented(gateway, sprites, settled, name, field):
    gateway.until_ready()
    sprites.view.fault(name, field=field)
    for outcome, exec_id in calls(gateway, 2, timeout_seconds=3):
        assert outcome in ("exited", "unknown", "not_started", "timed_out")
        assert sprites.view.starts(exec_id) <= 1


@pytest.mark.parametrize("name", ["wrong_type", "missing_field"])
def test_messages_with_random_damage(gateway, sprites, settled, name):
    gateway.until_ready()
    sprites.view.fault(name, rate=0.3)
    for _, exec_id in calls(gateway, 8, timeout_seconds=3):
        assert sprites.view.starts(exec_id) <= 1


# -- the control plane ---------------------------------------------------------

@pytest.mark.parametrize(("name", "more"), [("create_500", {}), ("create_429", {}), ("create_500", {"created": True}), ("starting_503", {})],
                         ids=["create_500", "create_429", "create_500 but created", "starting_503"])
def test_no_sandbox_can_be_had(gateway, sprites, settled, name, more):
    """Commands are refused as not started, with a time to come back; afterwards all is well again."""
    gateway.until_ready()
    sprites.view.fault(name, **more)
    gateway.run("exit 7")       # the hot one
    for _ in range(2):
        outcome, exec_id = explicit(gateway.exec(command=COMMAND))
        assert outcome == "not_started", outcome
        assert sprites.view.starts(exec_id) == 0


@pytest.mark.parametrize(("name", "more"), [("create_500", {}), ("create_500", {"created": True}), ("create_429", {}), ("starting_503", {"retry_after_seconds": 1}),
                                            ("wrong_type", {"field": "status"})])
def test_a_few_failures_are_overcome(gateway, sprites, settled, name, more):
    gateway.until_ready()
    sprites.view.fault(name, count=2, **more)
    for outcome, exec_id in calls(gateway, 3):
        assert sprites.view.starts(exec_id) <= 1, outcome


@pytest.mark.parametrize("more", [{}, {"deleted": True}], ids=["kept", "deleted all the same"])
def test_deletion_that_fails_is_repeated(gateway, sprites, settled, more):
    gateway.until_ready()
    sprites.view.fault("delete_500", count=3, **more)
    assert {outcome for outcome, _ in calls(gateway, 3)} == {"exited"}
    sprites.view.until_alive(1, 40)


def test_deletion_that_is_answered_404_wrongly(gateway, sprites, settled):
    """One 404 proves nothing: the Sprite still exists and costs money."""
    gateway.until_ready()
    sprites.view.fault("false_404", count=1, match={"method": "DELETE"})
    assert gateway.run("exit 7").exit_code == 7
    until(lambda: sprites.view.hits("false_404") == 1, "the deletion was answered 404")
    sprites.view.until_alive(1, 40)


def test_wrong_404_of_the_agent(gateway, sprites, settled):
    gateway.until_ready()
    sprites.view.fault("false_404", count=3, match={"method": "GET"})
    for outcome, exec_id in calls(gateway, 3):
        assert sprites.view.starts(exec_id) <= 1, outcome


def test_policy_that_does_not_hold_is_never_handed_out(gateway, sprites, settled):
    """What is read back decides: a Sprite whose network cannot be shown to be closed runs nothing."""
    gateway.until_ready()
    gateway.run("exit 7")
    sprites.view.fault("missing_field", field="rules")
    outcome, exec_id = explicit(gateway.exec(command=COMMAND))
    if outcome == "exited":     # the one that was prepared before
        outcome, exec_id = explicit(gateway.exec(command=COMMAND))
    assert outcome == "not_started", outcome
    assert sprites.view.starts(exec_id) == 0


def test_creation_that_hangs(rig):
    """It may succeed after we gave up: the Sprite must not stay."""
    emulator = rig.emulator()
    emulator.view.fault("create_hang", count=1, delay_ms=4000)
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_max=2, pool_wait_seconds=1)
    answers.not_started(gateway.exec(command="true"))
    until(lambda: emulator.view.state()["created"] >= 1, "the creation succeeded after all", 15)
    until(lambda: gateway.metrics().get("spritegate_exec_running") == 0, "nothing waits")
    gateway.signal(15)
    assert gateway.wait(40) == 0
    assert emulator.view.names() == [], "a Sprite was left behind"


# -- everything at once --------------------------------------------------------

MIXED = ["cut_before_start", "cut_after_start", "cut_before_output", "cut_after_output", "cut_before_exit", "cut_mid_frame",
         "no_exit_code", "duplicate_exit", "kill_vm", "create_500", "starting_503", "delete_500", "false_404"]


def test_all_faults_together(gateway, sprites, settled):
    gateway.until_ready()
    for name in MIXED:
        sprites.view.fault(name, rate=0.08, **({"retry_after_seconds": 1} if name == "starting_503" else {}))
    seen, failures = [], []

    def work():
        try:
            seen.extend(calls(gateway, 6))
        except AssertionError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert len({exec_id for _, exec_id in seen}) == 24
    assert any(outcome == "exited" for outcome, _ in seen), f"nothing came through: {seen}"
    check_starts(sprites)
