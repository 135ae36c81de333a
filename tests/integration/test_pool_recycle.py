"""Restoring a used Sprite when creations are short: clean, verified, and never for another token."""
import pytest

from rig import until

LIMIT = 6
LIMITED = ("--create-limit", f"{LIMIT}/60s", "--create-delay", "100ms", "--checkpoint-delay", "50ms", "--restore-delay", "100ms",
           "--idle-pause", "30s")


@pytest.fixture
def emulator(rig):
    return rig.emulator(*LIMITED)


def recycling(rig, emulator, **more):
    gateway = rig.gateway(emulator=emulator, pool_hot=0, pool_warm=1, pool_creates_per_minute=LIMIT, pool_recycle=1, pool_wait_seconds=15,
                          **more)
    until(lambda: members(gateway, "warm") == 1, "one is prepared")
    return gateway


def members(gateway, state):
    return gateway.metrics().get("spritegate_pool_members", state=state)


def restores(gateway, result="ok"):
    return gateway.metrics().get("spritegate_pool_restores_total", result=result)


def test_more_commands_than_creations(rig, emulator):
    gateway = recycling(rig, emulator)
    for index in range(2 * LIMIT):
        ran = gateway.run("ls -A ~ /tmp | grep -c mine; echo x >~/mine; echo x >/tmp/mine; (sleep 600 & ) >/dev/null 2>&1; true")
        assert ran.stdout == "0\n", f"command {index} found what an earlier one had left"
    state = emulator.view.state()
    assert state["created"] <= LIMIT and state["creates_refused"] == 0, state
    assert restores(gateway) >= LIMIT


def test_never_for_another_token(rig, emulator):
    gateway = recycling(rig, emulator)
    other = rig.mint()["token"]
    names = {}
    for token in (gateway.token, other) * LIMIT:
        answer = gateway.exec(token=token, command="hostname")
        if answer.status_code == 200:       # the other one may find nothing: that is better than somebody else's
            names.setdefault(token, set()).add(answer.json()["stdout"])
    assert restores(gateway) >= 1
    assert names[gateway.token] and not names[gateway.token] & names.get(other, set()), names


def test_what_may_be_a_sessions_is_never_restored(rig):
    """Its record could not be read back: a session may have the Sprite by now."""
    redis, emulator = rig.redis(), rig.emulator(*LIMITED)
    gateway = recycling(rig, emulator, redis=redis, token={"sessions": 3})
    redis.client.set("sg:{g}:sn", "not a hash")
    for name in "one", "two", "three":
        assert gateway.exec(command="true", session=name).status_code == 503
        until(lambda: members(gateway, "leased") + members(gateway, "recycling") == 0, "it was given back")
    assert [restores(gateway, result) for result in ("ok", "invalid", "unavailable")] == [0, 0, 0]


@pytest.mark.parametrize("command, restart", [("true", False), ("true", True), ("rm -f ~/.spritegate-used", False)])
def test_a_restore_that_only_says_so(rig, emulator, command, restart):
    """The mark that is still there gives it away, and without the mark the first process, which is still the same."""
    gateway = recycling(rig, emulator)
    emulator.view.fault("restore_nothing", restart=restart)
    for _ in range(LIMIT):
        gateway.run(command)
        if restores(gateway, "invalid"):
            break
    until(lambda: restores(gateway, "invalid") >= 1, "the restore is seen through")
    assert restores(gateway) == 0


def test_output_of_a_restored_sprite_is_verified(rig, emulator):
    gateway = recycling(rig, emulator, exec_verify_bytes=1000)
    while not restores(gateway):
        assert gateway.run("seq 100000").output_check == "verified"
    until(lambda: members(gateway, "hot") + members(gateway, "warm") >= 1, "it is ready again")
    for _ in range(LIMIT):
        assert gateway.run("seq 100000").output_check == "verified"


@pytest.mark.parametrize("fault, more, result", [("restore_error", {}, "invalid"), ("cut_lines", {"match": {"path": "*/restore"}}, "unavailable")])
def test_a_restore_that_fails(rig, emulator, fault, more, result):
    """Whoever ran a command is gone, and no other command was run by it."""
    gateway = recycling(rig, emulator)
    emulator.view.fault(fault, **more)
    used = []
    while not restores(gateway, result):
        used.append(gateway.run("hostname").stdout.strip())
        until(lambda: members(gateway, "leased") + members(gateway, "recycling") + members(gateway, "destroying") == 0, "what is in doubt is destroyed")
    assert emulator.view.hits(fault) == sum(restores(gateway, each) for each in ("ok", "invalid", "unavailable")) == restores(gateway, result)
    assert not set(used) & set(emulator.view.names()), "a Sprite that could not be restored is still there"
    assert gateway.run("hostname").stdout.strip() not in used and len(set(used)) == len(used)


def test_a_policy_that_cannot_be_read_after_the_restore(rig, emulator):
    gateway = recycling(rig, emulator)
    while not restores(gateway):
        gateway.run("true")
    until(lambda: members(gateway, "hot") + members(gateway, "warm") >= 1, "it is ready again")
    until(lambda: members(gateway, "creating") + members(gateway, "preparing") + members(gateway, "recycling") == 0, "nothing is on its way")
    before = restores(gateway)
    emulator.view.fault("missing_field", field="rules")
    gateway.exec(command="true")
    until(lambda: members(gateway, "recycling") + members(gateway, "leased") + members(gateway, "preparing") == 0, "it has been dealt with")
    assert restores(gateway) == before


def test_off_by_default(rig, emulator):
    gateway = rig.gateway(emulator=emulator, pool_hot=1, pool_creates_per_minute=LIMIT)
    for _ in range(LIMIT - 1):
        gateway.run("true")
    assert gateway.metrics().get("spritegate_sprites_calls_total", call="checkpoint", result="ok") == 0
    assert restores(gateway) == 0
