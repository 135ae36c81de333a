"""Whatever the control plane of Sprites answers: explicit refusals, recovery by itself, no Sprite that stays."""
import threading

import pytest

import answers
from faulty import COMMAND, calls, check_starts, explicit, gateway, recovers, sprites  # noqa: F401
from rig import SLOWER, until

pytestmark = pytest.mark.timeout(300 * max(1, SLOWER // 2))


@pytest.mark.parametrize(("name", "more"), [("create_500", {}), ("create_429", {}), ("create_500", {"created": True}), ("starting_503", {})],
                         ids=["create_500", "create_429", "create_500 but created", "starting_503"])
def test_no_sandbox_can_be_had(gateway, sprites, name, more):
    """Commands are refused as not started, with a time to come back."""
    sprites.fault(name, **more)
    gateway.run("exit 7")       # the hot one
    for _ in range(2):
        outcome, exec_id = explicit(gateway.exec(command=COMMAND))
        assert outcome == "not_started", outcome
        assert sprites.starts(exec_id) == 0


def test_recovers_by_itself(gateway, sprites):
    """After failures that went on for a while."""
    sprites.fault("create_500")
    sprites.fault("cut_before_exit")
    gateway.exec(command=COMMAND)
    until(lambda: sprites.hits("create_500") >= 3, "several creations have failed")
    recovers(gateway, sprites)


@pytest.mark.parametrize(("name", "more"), [("create_500", {}), ("create_500", {"created": True}), ("create_429", {}), ("starting_503", {"retry_after_seconds": 1}),
                                            ("wrong_type", {"field": "status"})])
def test_a_few_failures_are_overcome(gateway, sprites, name, more):
    sprites.fault(name, count=2, **more)
    for outcome, exec_id in calls(gateway, 3):
        assert sprites.starts(exec_id) <= 1, outcome


@pytest.mark.parametrize("more", [{}, {"deleted": True}], ids=["kept", "deleted all the same"])
def test_deletion_that_fails_is_repeated(gateway, sprites, more):
    sprites.fault("delete_500", count=3, **more)
    assert {outcome for outcome, _ in calls(gateway, 3)} == {"exited"}
    sprites.until_alive(1)


def test_deletion_that_is_answered_404_wrongly(gateway, sprites):
    """One 404 proves nothing: the Sprite still exists and costs money."""
    sprites.fault("false_404", count=1, match={"method": "DELETE"})
    assert gateway.run("exit 7").exit_code == 7
    until(lambda: sprites.hits("false_404") == 1, "the deletion was answered 404")
    sprites.until_alive(1)


def test_wrong_404_of_the_agent(gateway, sprites):
    sprites.fault("false_404", count=3, match={"method": "GET"})
    for outcome, exec_id in calls(gateway, 3):
        assert sprites.starts(exec_id) <= 1, outcome


def test_policy_that_does_not_hold_is_never_handed_out(gateway, sprites):
    """What is read back decides: a Sprite whose network cannot be shown to be closed runs nothing."""
    gateway.run("exit 7")
    sprites.fault("missing_field", field="rules")
    outcome, exec_id = explicit(gateway.exec(command=COMMAND))
    if outcome == "exited":     # the one that was prepared before
        outcome, exec_id = explicit(gateway.exec(command=COMMAND))
    assert outcome == "not_started", outcome
    assert sprites.starts(exec_id) == 0


def test_outdated_sprites_are_never_handed_out(rig):
    """Runtimes before rc33 lose the output of short commands."""
    sprites = rig.emulator("--sprite-version", "v0.0.1-rc31").view
    gateway = rig.gateway(emulator=sprites, pool_hot=0, pool_wait_seconds=5)
    outcome, exec_id = explicit(gateway.exec(command=COMMAND))
    assert outcome == "not_started", outcome
    assert sprites.starts(exec_id) == 0
    until(lambda: "runs v0.0.1-rc31" in gateway.log, lambda: f"the reason is logged: {gateway.log[-3000:]}")


def test_creation_that_hangs(rig):
    """It may succeed after we gave up: the Sprite must not stay."""
    emulator = rig.emulator()
    emulator.view.fault("create_hang", count=1, delay_ms=4000)
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_max=2, pool_wait_seconds=1)
    answers.not_started(gateway.exec(command="true"))
    until(lambda: emulator.view.state()["created"] >= 1, "the creation succeeded after all")
    until(lambda: gateway.metrics().get("spritegate_exec_running") == 0, "nothing waits")
    gateway.signal(15)
    assert gateway.wait() == 0
    assert emulator.view.names() == [], "a Sprite was left behind"


# -- everything at once --------------------------------------------------------

MIXED = ["cut_before_start", "cut_after_start", "cut_before_output", "cut_after_output", "cut_before_exit", "cut_mid_frame",
         "no_exit_code", "duplicate_exit", "kill_vm", "create_500", "starting_503", "delete_500", "false_404"]


def test_all_faults_together(gateway, sprites):
    for name in MIXED:
        sprites.fault(name, rate=0.08, **({"retry_after_seconds": 1} if name == "starting_503" else {}))
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
