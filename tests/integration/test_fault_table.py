"""Each row of the table of faults: exactly this answer, at most one start, and no Sprite or lease that stays."""
import secrets
import sys

import pytest

import answers
from fault_table import ANYTHING, CONTROL, CREATIONS, ROWS, STREAMED
from rig import SLOWER, TOP, leases, until
from streamed import Streamed

sys.path.append(str(TOP / "tests/emulator"))
from faults import KNOWN  # noqa: E402

pytestmark = pytest.mark.timeout(300 * max(1, SLOWER // 2))


def test_every_fault_has_a_row():
    assert {row.fault for row in ROWS} == set(KNOWN), "tests/integration/fault_table.py says what callers are answered"


def test_rows_are_told_apart():
    assert len({str(row) for row in ROWS}) == len(ROWS)
    assert STREAMED <= {str(row) for row in ROWS if row.strikes in HOT}


def starts(sprites, exec_id, row):
    """A command that its caller was answered for may be on its way still."""
    if row.answer["starts"]:
        until(lambda: sprites.starts(exec_id), "it is started")
    return sprites.starts(exec_id)


def seen(response, sprites, row):
    """The answer as the table writes it, once it was checked as a whole."""
    match response.status_code:
        case 200:
            body = answers.Ran(response).json
        case 502:
            body = answers.unknown(response)
        case _:
            body = answers.not_started(response)
    return {"status": response.status_code, "code": body.get("code"), "outcome": body["outcome"], "exit_code": body.get("exit_code"),
            "may_have_run": body.get("may_have_run"), "retry_after": response.headers.get("Retry-After"),
            "tier": body.get("sandbox", {}).get("tier"), "stdout": body.get("stdout"), "check": body.get("output_check"), "starts": starts(sprites, body["exec_id"], row)}


def seen_streamed(stream, sprites, row):
    """The same of NDJSON: what is refused after the stream has begun is a result with the members of a problem."""
    result = stream.all().result
    ran = result["ok"]
    return {"status": 200 if ran else result["status"], "code": result.get("code"), "outcome": result["outcome"], "exit_code": result["exit_code"],
            "may_have_run": result.get("may_have_run"), "retry_after": result.get("retry_after"), "tier": result["sandbox"]["tier"] if ran else None,
            "stdout": stream.stdout.decode(), "check": result["output_check"] if ran else None, "starts": starts(sprites, stream.exec_id, row)}


def check(response, sprites, row):
    compare(seen(response, sprites, row), row, f"{response.text[:500]} … {response.text[-500:]}")


def compare(found, row, text):
    wanted = dict(row.answer)
    if wanted["retry_after"]:
        least, most = wanted["retry_after"]
        assert found["retry_after"] and least <= int(found["retry_after"]) <= most, found
        wanted["retry_after"] = found["retry_after"]
    wanted |= {key: found[key] for key, value in wanted.items() if value == ANYTHING}
    assert found == wanted, text


def strike(sprites, row, name):
    """Its faults, for Sprites of this name only, so that rows do not meet each other's."""
    for fault, parameters in ((row.fault, row.parameters), *row.also):
        sprites.fault(fault, **{**parameters, "match": {**parameters.get("match", {}), "sprite": name}})


def hits(sprites, row, name):
    active = sprites.http.get("/_emulator/faults").json()["faults"]
    return sum(fault["hits"] for fault in active if fault["name"] == row.fault and fault["match"]["sprite"] == name)


def check_hits(sprites, row, name):
    if row.hits:
        until(lambda: hits(sprites, row, name), "the fault has struck")
    else:
        assert hits(sprites, row, name) == 0


@pytest.fixture(scope="module")
def sprites(shared_rig):
    return shared_rig.emulator().view


# -- one hot Sprite

HOT = ("command", "waiting", "socket")


@pytest.fixture(scope="module")
def gateway(stack, shared_rig, sprites):
    yield from one_hot(stack, shared_rig, sprites, "control")


@pytest.fixture(scope="module")
def plain(stack, shared_rig, sprites):
    """Its Sprites have no control socket."""
    yield from one_hot(stack, shared_rig, sprites, "plain")


@pytest.fixture(scope="module")
def ahead(stack, shared_rig, sprites):
    """In its Sprites something waits for the command."""
    yield from one_hot(stack, shared_rig, sprites, "ahead")


def one_hot(stack, rig, sprites, kind):
    instance = f"{kind}-{secrets.token_hex(4)}"
    if kind == "plain":
        sprites.fault("false_404", match={"sprite": f"sg-{instance}-*", **CONTROL})
    gateway = rig.gateway(emulator=sprites, pool_hot=1, pool_max=8, pool_ahead=int(kind == "ahead"), instance=instance)
    gateway.used = set()
    yield gateway
    until(lambda: not gateway.used & set(sprites.names()), "every Sprite that was used is destroyed")
    gateway.signal(15)
    assert gateway.wait(40) == 0, gateway.log[-3000:]
    assert [name for name in sprites.names() if gateway.instance in name] == [], "Sprites are left behind"
    assert leases(stack.redis) == 0, "leases are left"


def next_of(gateway, sprites):
    """The name of its Sprite that is next."""
    gateway.until_ready()
    [name] = until(lambda: [name for name in sprites.names() if gateway.instance in name and name not in gateway.used], "one is ready")
    gateway.used.add(name)
    if gateway.instance.startswith("ahead-"):
        sprites.until_waiting(name)
    return name


@pytest.fixture
def asked(row, request):
    return request.getfixturevalue({"command": "gateway", "waiting": "ahead", "socket": "plain"}[row.strikes])


@pytest.mark.parametrize("row", [row for row in ROWS if row.strikes in HOT], ids=str)
def test_command(asked, sprites, row):
    name = next_of(asked, sprites)
    strike(sprites, row, name)
    check(asked.exec(**{"timeout_seconds": 10, **row.request}), sprites, row)
    check_hits(sprites, row, name)


@pytest.mark.parametrize("row", [row for row in ROWS if str(row) in STREAMED], ids=str)
def test_command_streamed(asked, sprites, row):
    name = next_of(asked, sprites)
    strike(sprites, row, name)
    with Streamed(asked, **{"timeout_seconds": 10, **row.request}) as stream:
        compare(seen_streamed(stream, sprites, row), row, str(stream.objects)[:1000])
    check_hits(sprites, row, name)


# -- none

@pytest.fixture(scope="module")
def drained(stack, sprites):
    """Gateways that were asked to end: a creation that was lost is looked for until their deadline."""
    gateways = []
    yield gateways
    for gateway in gateways:
        assert gateway.wait(60) == 0, gateway.log[-3000:]
        assert [name for name in sprites.names() if gateway.instance in name] == [], "Sprites are left behind"
        assert "still has handles" not in gateway.log, gateway.log
    assert leases(stack.redis) == 0, "leases are left"


@pytest.mark.parametrize("row", [row for row in ROWS if row.strikes == "supply"], ids=str)
def test_supply(shared_rig, gateway, sprites, drained, row):
    empty = shared_rig.gateway(emulator=sprites, token=False, **row.settings)
    until(lambda: empty.health().json()["redis"] == "up", "Redis is there")
    name = f"sg-{empty.instance}-*"
    strike(sprites, row, name)
    response = empty.exec(token=gateway.token, **{"timeout_seconds": 10, **row.request})
    empty.signal(15)
    drained.append(empty)
    check(response, sprites, row)
    check_hits(sprites, row, name)


# -- restored ones

@pytest.mark.parametrize("row", [row for row in ROWS if row.strikes == "restore"], ids=str)
def test_restore(rig, row):
    sprites = rig.emulator("--create-limit", f"{CREATIONS}/60s", "--checkpoint-delay", "50ms", "--restore-delay", "50ms").view
    gateway = rig.gateway(emulator=sprites, drain_accept_seconds=0, **row.settings)
    until(lambda: members(gateway, "warm") == 1, "one is prepared")
    name, used = f"sg-{gateway.instance}-*", []
    strike(sprites, row, name)

    def run():
        response = gateway.exec(**row.request)
        check(response, sprites, row)
        used.append(response.json()["stdout"].strip())
        assert used[-1].startswith(f"sg-{gateway.instance}-") and len(used[-1].split()) == 1, used
        assert len(used) > 1 or response.json()["sandbox"]["tier"] == "warm", "the first finds the one that was prepared"

    while not hits(sprites, row, name):
        run()
        until(lambda: not members(gateway, "leased"), "it is decided what becomes of the Sprite")
    until(lambda: not any(members(gateway, state) for state in ("recycling", "destroying")), "it is restored or destroyed")
    restored = gateway.metrics().get("spritegate_pool_restores_total", result="ok")
    left = set(used) & set(sprites.names())
    if "count" in row.parameters:
        assert (restored, len(left)) == (1, 1)
    else:
        assert (restored, left) == (0, set()), "a Sprite that could not be restored is still there"
    run()
    assert set(used[:-1]) & {used[-1]} <= left, f"one was used again: {used}"
    sprites.clear_faults()
    gateway.signal(15)
    assert gateway.wait(40) == 0, gateway.log[-3000:]
    assert sprites.names() == [], "Sprites are left behind"


def members(gateway, state):
    return gateway.metrics().get("spritegate_pool_members", state=state)
